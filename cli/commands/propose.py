"""``ecdreg propose``: new compositions in known structures that models say have wished properties."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.options.common import JsonOption, open_engine
from cli.options.common import settings as environment
from cli.options.constraints import (
    AllElementsOption,
    AnyElementsOption,
    PreferOption,
    WantOption,
    WithoutOption,
    cell,
    columns_of,
    elements_of,
    value_json,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    from ingest.substitution import Proposal
    from registry.search.constraints import Constraint
    from train.discovery.ranking import PropertyModels, Ranked

    _Candidate: TypeAlias = tuple[Proposal, Ranked]

__all__ = ["propose"]


def propose(
    want: WantOption = None,
    prefer: PreferOption = None,
    like: Annotated[
        str | None, typer.Option("--like", metavar="ID", help="Replace elements of this crystal alone.")
    ] = None,
    prototype: Annotated[
        str | None, typer.Option("--prototype", metavar="NAME", help="Only in this one, as ABC2-cF16-225.")
    ] = None,
    elements_any: AnyElementsOption = None,
    elements_all: AllElementsOption = None,
    without: WithoutOption = None,
    replace: Annotated[
        int, typer.Option("--replace", min=1, max=2, help="How many elements of a crystal are replaced at most.")
    ] = 1,
    likeness: Annotated[
        float, typer.Option("--likeness", min=0.0, max=1.0, help="Leave out replacements less like than this.")
    ] = 0.0,
    k: Annotated[int, typer.Option("-k", min=1, help="How many crystals.")] = 10,
    shortlist: Annotated[
        int, typer.Option("--shortlist", min=0, help="How many are described in words, 2 to 6 s each; 0: none.")
    ] = 20,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="Split whose cross-validation ranks the models. [default]"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Write the structures as CIF here, with a manifest.csv."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Propose crystals that the registry does not have, by replacing elements of those that it has.

    Ions are replaced by ions of the same charge, as likely as known compounds do so; elements of alloys by their
    neighbours on Pettifor's scale. The new crystals keep the structure, are scaled in volume, and are not relaxed.
    Models that need no density predict them: all from their composition, and the best of them, once
    robocrystallographer has described them, by the models that read texts too. Nothing here has been calculated:
    a proposal is worth a calculation, no more. "out of domain" marks what the models have learnt nothing like.

    \b
    Examples:
      ecdreg propose --want k_vrh=250: --prefer formation_energy_per_atom=min --elements-any Ti,Zr
      ecdreg propose --like mp-1022 --replace 2 --prefer formation_energy_per_atom=min
      ecdreg propose --prototype ABC2-cF16-225 --want efermi=5:7 --without Os,Ir -o proposals/
      ecdreg propose --prefer k_vrh=max --shortlist 0 --json
    """
    from registry.search.constraints import parse_constraint, parse_objective

    engine = open_engine()  # first: the properties that users added are read from the database
    constraints = [parse_constraint(one) for one in want or ()]
    objectives = [parse_objective(one) for one in prefer or ()]
    if not constraints and not objectives:
        objectives = [parse_objective("formation_energy_per_atom=min")]
        output.note("nothing is wished for: by the lowest formation energy")
    elements = elements_of(elements_any, elements_all, without)
    from train.discovery.property_search import check_constraints

    names = check_constraints(constraints, objectives)
    if out is not None:
        _make_folder(out)
    from sqlalchemy.orm import Session

    from ingest.substitution import known_keys, read_parents, volumes_of
    from ingest.substitution import propose as substitute
    from registry.formulas import composition

    with Session(engine) as session:
        parents, family = read_parents(session, prototype=prototype, ident=like)
        known = known_keys(session)
    with output.progress() as progress:
        proposals = [
            one
            for one in substitute(parents, family, known=known, depth=replace, progress=progress)
            if one.likeness >= likeness and elements.allow(list(composition(one.formula)))
        ]
    found: list[_Candidate] = []
    if proposals:
        from ingest.substitution import as_crystal
        from train.discovery.ranking import PropertyModels, rank

        with output.progress() as progress:
            progress.begin("loading the models")
            sayers = PropertyModels(engine, environment(), names, split=split)
            progress.end()
            ranked = rank(
                sayers,
                [as_crystal(one, structure=False) for one in proposals],
                constraints=constraints,
                objectives=objectives,
                describe=lambda i: as_crystal(proposals[i], texts=True),
                shortlist=shortlist,
                progress=progress,
            )
        found = [(proposals[one.place], one) for one in ranked[:k]]
        _tell(sayers, len(proposals), len(parents), constraints, found)
    else:
        output.note(f"no composition is new among what {len(parents)} crystals give with these elements")
    if out is not None:
        _export(found, names, out)
    if json:
        output.json([_json(rank, one) for rank, one in enumerate(found, start=1)])
        return
    if found:
        output.table(
            [_row(rank, one, names) for rank, one in enumerate(found, start=1)],
            {"rank": "rank", "formula": "formula", "prototype": "prototype", "from": "made of", "met": "met"}
            | {"front": "front"}
            | ({"chance": "chance"} if constraints else {})
            | columns_of(names)
            | {"likeness": "likeness"},
            formats={"chance": ".2f", "likeness": ".2f"},
        )
        sizes = volumes_of(family)
        for group in sorted({(proposal.prototype, proposal.rule) for proposal, _ in found}):
            output.note(f"volumes of {group[0]}, {group[1]}: {sizes[group].told()}")


def _make_folder(out: Path) -> None:
    from registry.errors import ConfigurationError

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{out} cannot be made a folder: {error.strerror}; choose another") from error


def _export(found: Sequence[_Candidate], names: list[str], out: Path) -> None:
    import csv

    from ingest.substitution import write_cif
    from registry.errors import InputError

    rows = []
    with output.progress() as progress:
        progress.begin("structures", len(found))
        for rank, one in enumerate(found, start=1):
            path = write_cif(one[0], out)
            rows.append({"rank": rank, "file": path.name, **_flat(one, names)})
            progress.advance(1, path.name)
        progress.end()
    manifest = out / "manifest.csv"
    try:
        with manifest.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]) if rows else ["rank", "file"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise InputError(f"{manifest} cannot be written: {error.strerror}; choose another folder") from error
    output.note(f"{len(rows)} structures and manifest.csv are in {out}")


def _tell(
    sayers: PropertyModels,
    n_proposals: int,
    n_parents: int,
    constraints: Sequence[Constraint],
    found: Sequence[_Candidate],
) -> None:
    from registry.properties import PROPERTIES

    output.note(f"{n_proposals} compositions that are not in the registry, from {n_parents} crystals")
    for name, models in sayers.models.items():
        told = ", ".join(f"{m.model.name} (RMSE {m.cv_rmse:.3g})" for m in models)
        output.note(f"{name} [{PROPERTIES[name].unit}] is predicted by {told}, the first that can read it counts")
    if constraints and not any(one.meets for _, one in found):
        output.note("none is predicted to meet every constraint: the nearest misses")


def _made_of(proposal: Proposal) -> str:
    return f"{proposal.parent.formula}: " + ", ".join(f"{old}>{new}" for old, new in proposal.replaced)


def _row(rank: int, candidate: _Candidate, names: list[str]) -> dict[str, Any]:
    proposal, one = candidate
    return {
        "rank": rank,
        "formula": proposal.formula,
        "prototype": proposal.prototype,
        "from": _made_of(proposal),
        "met": ("yes" if one.meets else "no") + (", out of domain" if one.said.out_of_domain else ""),
        "front": one.front,
        "chance": one.chance,
        "likeness": proposal.likeness,
        **{name: cell(one.said.values[name]) for name in names},
    }


def _flat(candidate: _Candidate, names: list[str]) -> dict[str, Any]:
    proposal, one = candidate
    row: dict[str, Any] = {
        "formula": proposal.formula,
        "prototype": proposal.prototype,
        "space_group": proposal.parent.space_group_symbol,
        "parent": proposal.parent.name,
        "made_of": _made_of(proposal),
        "rule": proposal.rule,
        "likeness": round(proposal.likeness, 6),
        "volume_per_formula": round(proposal.volume_per_formula, 4),
        "meets": one.meets,
        "front": one.front,
        "chance": one.chance,
        "out_of_domain": one.said.out_of_domain,
        "described": one.described,
    }
    for name in names:
        value = one.said.values[name]
        row |= {name: value.value, f"{name}_lower": value.lower, f"{name}_upper": value.upper}
        row[f"{name}_model"] = value.model
        row[f"{name}_others"] = "; ".join(f"{o.model}: {o.value:.5g}" for o in one.said.others.get(name, ()))
    return row


def _json(rank: int, candidate: _Candidate) -> dict[str, Any]:
    proposal, one = candidate
    return {
        "rank": rank,
        "formula": proposal.formula,
        "prototype": proposal.prototype,
        "space_group_symbol": proposal.parent.space_group_symbol,
        "parent": proposal.parent.name,
        "parent_formula": proposal.parent.formula,
        "replaced": [{"old": old, "new": new} for old, new in proposal.replaced],
        "rule": proposal.rule,
        "likeness": proposal.likeness,
        "volume_per_formula": proposal.volume_per_formula,
        "meets": one.meets,
        "front": one.front,
        "chance": one.chance,
        "out_of_domain": one.said.out_of_domain,
        "described": one.described,
        "values": {name: value_json(value, name) for name, value in one.said.values.items()},
        "others": {name: [value_json(o, name) for o in others] for name, others in one.said.others.items()},
    }
