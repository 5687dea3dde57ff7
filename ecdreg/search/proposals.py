"""Proposals: new compositions in known structures that models predict to meet constraints."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from ecdreg.results import Results
from ecdreg.search.property_search import element_filter, parse_constraints, parse_objectives, value_dict
from registry.errors import ConfigurationError, InputError
from registry.formulas import composition
from registry.jobs.progress import Progress, Silent
from registry.properties import DEFAULT_OBJECTIVE, PROPERTIES
from registry.search.constraints import Constraint, Objective, PropertyEstimate, parse_objective

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

    from ecdreg.connection import RegistryConnection
    from ingest.substitution import Proposal
    from train.discovery.ranking import PropertyModels, RankedCrystal

__all__ = ["Proposals", "ProposedCrystal", "propose"]


@dataclass(frozen=True)
class ProposedCrystal:
    """A crystal that is not in the registry, with its predictions."""

    rank: int
    """From 1."""
    formula: str
    prototype: str
    space_group_symbol: str
    parent: str
    """``source:id`` of the crystal of which elements are replaced."""
    parent_formula: str
    replaced: tuple[tuple[str, str], ...]
    """(old, new) elements."""
    rule: str
    """Reason why these elements may replace each other."""
    likeness: float
    """0 to 1; how likely the replacements are, see :class:`ingest.substitution.Proposal`."""
    volume_per_formula: float
    """[Å^3]"""
    meets: bool
    """Whether its values meet every constraint."""
    front: int
    """Pareto front, from 1."""
    chance: float | None
    """Probability that all constraints are met, as if the errors of the properties were independent; None without
    constraints or intervals."""
    out_of_domain: bool | None
    """Whether a model that counts was trained on nothing like it."""
    described: bool
    """Whether models of texts have predicted it, too."""
    values: Mapping[str, PropertyEstimate]
    """By property, the prediction of the best model that can read it, in the unit of the property."""
    others: Mapping[str, tuple[PropertyEstimate, ...]]
    """By property, the predictions of the other models, the better model first."""

    @property
    def made_of(self) -> str:
        """The parent and the replacements in one line, as ``MgO: Mg>Ca``."""
        return f"{self.parent_formula}: " + ", ".join(f"{old}>{new}" for old, new in self.replaced)

    def to_dict(self) -> dict[str, Any]:
        """The row of the JSON output."""
        row: dict[str, Any] = {n: getattr(self, n) for n in self.__dataclass_fields__}
        return row | {
            "replaced": [{"old": old, "new": new} for old, new in self.replaced],
            "values": {name: value_dict(value, name) for name, value in self.values.items()},
            "others": {name: [value_dict(one, name) for one in others] for name, others in self.others.items()},
        }

    def to_flat(self) -> dict[str, Any]:
        """The row of ``manifest.csv``: five columns for each property."""
        row: dict[str, Any] = {
            "formula": self.formula,
            "prototype": self.prototype,
            "space_group": self.space_group_symbol,
            "parent": self.parent,
            "made_of": self.made_of,
            "rule": self.rule,
            "likeness": round(self.likeness, 6),
            "volume_per_formula": round(self.volume_per_formula, 4),
            "meets": self.meets,
            "front": self.front,
            "chance": self.chance,
            "out_of_domain": self.out_of_domain,
            "described": self.described,
        }
        for name, value in self.values.items():
            row |= {name: value.value, f"{name}_lower": value.lower, f"{name}_upper": value.upper}
            row[f"{name}_model"] = value.model
            row[f"{name}_others"] = "; ".join(f"{o.model}: {o.value:.5g}" for o in self.others.get(name, ()))
        return row


@dataclass(frozen=True)
class Proposals(Results[ProposedCrystal]):
    """Proposed crystals, the best first."""

    properties: tuple[str, ...] = ()
    """Properties of the constraints and objectives, each once."""
    substitutions: tuple[Proposal, ...] = field(default=(), repr=False)
    """Proposals of which the rows are made, in their order."""

    def structures(self) -> list[Structure]:
        """The crystals, not relaxed, in the cells of their parents [Å]; pymatgen ``Structure``."""
        return [one.structure() for one in self.substitutions]

    def write(self, folder: Path, *, progress: Progress | None = None) -> None:
        """Write the structures into a folder as CIF with their symmetry, and ``manifest.csv`` with the predictions.

        Raises
        ------
        InputError
            If a file cannot be written.
        """
        from ingest.substitution import write_cif

        progress = progress or Silent()
        table = []
        progress.begin("structures", len(self))
        for row, one in zip(self.rows, self.substitutions, strict=True):
            path = write_cif(one, folder)
            table.append({"rank": row.rank, "file": path.name, **row.to_flat()})
            progress.advance(1, path.name)
        progress.end()
        manifest = folder / "manifest.csv"
        try:
            with manifest.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, list(table[0]) if table else ["rank", "file"], lineterminator="\n")
                writer.writeheader()
                writer.writerows(table)
        except OSError as error:
            raise InputError(f"{manifest} cannot be written: {error.strerror}; choose another folder") from error


def propose(
    registry: RegistryConnection,
    constraints: Sequence[str | Constraint] = (),
    objectives: Sequence[str | Objective] = (),
    *,
    like: str | None = None,
    prototype: str | None = None,
    elements_any: str | Sequence[str] = (),
    elements_all: str | Sequence[str] = (),
    without: str | Sequence[str] = (),
    replace: int = 1,
    likeness: float = 0.0,
    k: int = 10,
    shortlist: int = 20,
    split: str | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Proposals:
    """Propose crystals that the registry does not have, by replacing elements of those that it has.

    The new crystals keep the structure of their parent, are scaled in volume, and are not relaxed. Models that need no
    density predict them: all from their composition, and the best of them, once robocrystallographer has described
    them, by the models that read texts too. Nothing is calculated.

    Parameters
    ----------
    registry
        An open registry.
    constraints
        Ranges of properties, as ``"k_vrh=250:300"`` or ``"k_vrh=250:"``.
    objectives
        ``"k_vrh=max"``, ``"efermi=min"`` or ``"efermi=6"`` (as near as possible). Without any constraint and
        objective: :data:`registry.properties.DEFAULT_OBJECTIVE`.
    like
        Replace elements of this crystal alone: its id, or ``source:id``.
    prototype
        Only crystals of this prototype, as ``ABC2-cF16-225``.
    elements_any, elements_all, without
        Symbols: at least one of these, all of these, none of these; a list, or a string as ``"Ti,Zr"``.
    replace
        Elements of a crystal that are replaced at most, 1 or 2.
    likeness
        Leave out replacements of a smaller likeness, 0 to 1.
    k
        Number of crystals.
    shortlist
        Number of crystals that are described in words for the models that read them, which takes 2 to 6 s each.
    split
        Split of the cross-validation that ranks the models; None: ``default`` where models have it, else the newest.
    folder
        Folder where the structures are written as CIF, with a ``manifest.csv``; it is made if it does not exist.
    progress
        Receives the progress.

    Returns
    -------
    Proposals
        Notes: how many compositions are new, which models predict, and how the volumes are estimated.

    Raises
    ------
    ConfigurationError
        If a constraint or an objective cannot be parsed, a property has two, an element does not exist, the folder
        cannot be made, or a number is out of range.
    NotFoundError
        If there is no such crystal or prototype, or no model predicts a property from a composition alone.
    InputError
        If a structure cannot be written.
    """
    if replace not in (1, 2) or k < 1 or shortlist < 0:
        raise ConfigurationError(
            f"replace is {replace}, k {k} and shortlist {shortlist}; give 1 or 2, at least 1, and at least 0"
        )
    ranges, senses = parse_constraints(constraints), parse_objectives(objectives)
    notes: list[str] = []
    if not ranges and not senses:
        senses = [parse_objective(DEFAULT_OBJECTIVE)]
        notes.append("no constraint and no objective is given: by the lowest formation energy")
    elements = element_filter(elements_any, elements_all, without)
    from train.discovery.property_search import check_constraints

    names = check_constraints(ranges, senses)
    target = None if folder is None else _make_folder(Path(folder))
    progress = progress or Silent()
    from ingest.substitution import known_keys, read_parents, volumes_of
    from ingest.substitution import propose as substitute

    with Session(registry.engine) as session:
        parents, family = read_parents(session, prototype=prototype, ident=like)
        known = known_keys(session)
    proposals = [
        one
        for one in substitute(parents, family, known=known, depth=replace, progress=progress)
        if one.likeness >= likeness and elements.allow(list(composition(one.formula)))
    ]
    best: list[RankedCrystal] = []
    if proposals:
        from ingest.substitution import as_crystal
        from train.discovery.ranking import PropertyModels, rank

        progress.begin("loading the models")
        models = PropertyModels(registry.engine, registry.settings, names, split=split)
        progress.end()
        best = rank(
            models,
            [as_crystal(one, structure=False) for one in proposals],
            constraints=ranges,
            objectives=senses,
            describe=lambda i: as_crystal(proposals[i], texts=True),
            shortlist=shortlist,
            progress=progress,
        )[:k]
        notes.append(f"{len(proposals)} compositions that are not in the registry, from {len(parents)} crystals")
        notes += _model_notes(models)
        if ranges and not any(one.meets for one in best):
            notes.append("none is predicted to meet every constraint: the nearest misses")
        sizes = volumes_of(family)
        groups = sorted({(proposals[one.place].prototype, proposals[one.place].rule) for one in best})
        notes += [f"volumes of {group[0]}, {group[1]}: {sizes[group].describe()}" for group in groups]
    else:
        notes.append(f"no composition is new among what {len(parents)} crystals give with these elements")
    if target is not None:
        notes.append(f"{len(best)} structures and manifest.csv are in {target}")
    found = Proposals(
        tuple(_row(place, proposals[one.place], one) for place, one in enumerate(best, start=1)),
        tuple(notes),
        properties=tuple(names),
        substitutions=tuple(proposals[one.place] for one in best),
    )
    if target is not None:
        found.write(target, progress=progress)
    return found


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be made a folder: {error.strerror}; choose another") from error
    return folder


def _row(rank: int, proposal: Proposal, ranked: RankedCrystal) -> ProposedCrystal:
    return ProposedCrystal(
        rank=rank,
        formula=proposal.formula,
        prototype=proposal.prototype,
        space_group_symbol=proposal.parent.space_group_symbol,
        parent=proposal.parent.name,
        parent_formula=proposal.parent.formula,
        replaced=proposal.replaced,
        rule=proposal.rule,
        likeness=proposal.likeness,
        volume_per_formula=proposal.volume_per_formula,
        meets=ranked.meets,
        front=ranked.front,
        chance=ranked.chance,
        out_of_domain=ranked.predicted.out_of_domain,
        described=ranked.described,
        values=ranked.predicted.values,
        others=ranked.predicted.others,
    )


def _model_notes(models: PropertyModels) -> list[str]:
    notes = []
    for name, ranked in models.models.items():
        scores = ", ".join(f"{one.model.name} (RMSE {one.cv_rmse:.3g})" for one in ranked)
        unit = PROPERTIES[name].unit
        notes.append(f"{name} [{unit}] is predicted by {scores}; the first that can read the crystal counts")
    return notes
