"""``ecdreg propose``: new compositions in known structures that models predict to meet constraints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.connections import open_registry
from cli.options.arguments import JsonOption
from cli.options.constraints import (
    AllElementsOption,
    AnyElementsOption,
    ConstraintOption,
    ObjectiveOption,
    WithoutOption,
    columns_of,
    value_cell,
)

if TYPE_CHECKING:
    from ecdreg.search.proposals import ProposedCrystal

__all__ = ["propose"]

_COLUMNS = {
    "rank": "rank",
    "formula": "formula",
    "prototype": "prototype",
    "from": "made of",
    "met": "met",
    "front": "front",
}


def propose(
    constraints: ConstraintOption = None,
    objectives: ObjectiveOption = None,
    like: Annotated[
        str | None, typer.Option("--like", metavar="ID", help="Replace elements of this crystal alone.")
    ] = None,
    prototype: Annotated[
        str | None, typer.Option("--prototype", metavar="NAME", help="Only this prototype, as ABC2-cF16-225.")
    ] = None,
    elements_any: AnyElementsOption = "",
    elements_all: AllElementsOption = "",
    without: WithoutOption = "",
    replace: Annotated[
        int, typer.Option("--replace", min=1, max=2, help="Elements of a crystal that are replaced at most.")
    ] = 1,
    likeness: Annotated[
        float, typer.Option("--likeness", min=0.0, max=1.0, help="Leave out replacements of a smaller likeness.")
    ] = 0.0,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of crystals.")] = 10,
    shortlist: Annotated[
        int,
        typer.Option("--shortlist", min=0, help="Number of crystals described in words, 2 to 6 s each; 0: none."),
    ] = 20,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="Split of the cross-validation that ranks models. [default]"),
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
    robocrystallographer has described them, by the models that read texts too. Nothing is calculated: a proposal is a
    candidate for a calculation. "out of domain" marks crystals unlike everything that the models were trained on.

    \b
    Examples:
      ecdreg propose --constraint k_vrh=250: --objective formation_energy_per_atom=min --elements-any Ti,Zr
      ecdreg propose --like mp-1022 --replace 2 --objective formation_energy_per_atom=min
      ecdreg propose --prototype ABC2-cF16-225 --constraint efermi=5:7 --without Os,Ir -o proposals/
      ecdreg propose --objective k_vrh=max --shortlist 0 --json
    """
    registry = open_registry()
    with output.progress() as progress:
        found = registry.propose(
            constraints or (),
            objectives or (),
            like=like,
            prototype=prototype,
            elements_any=elements_any,
            elements_all=elements_all,
            without=without,
            replace=replace,
            likeness=likeness,
            k=k,
            shortlist=shortlist,
            split=split,
            folder=out,
            progress=progress,
        )
    if json:
        output.json(found.to_dicts())
    elif found:
        chance = {"chance": "chance"} if constraints else {}
        output.table(
            [_row(one) for one in found],
            _COLUMNS | chance | columns_of(found.properties) | {"likeness": "likeness"},
            formats={"chance": ".2f", "likeness": ".2f"},
        )
    output.remarks(found)


def _row(one: ProposedCrystal) -> dict[str, Any]:
    return {
        "rank": one.rank,
        "formula": one.formula,
        "prototype": one.prototype,
        "from": one.made_of,
        "met": ("yes" if one.meets else "no") + (", out of domain" if one.out_of_domain else ""),
        "front": one.front,
        "chance": one.chance,
        "likeness": one.likeness,
        **{name: value_cell(value) for name, value in one.values.items()},
    }
