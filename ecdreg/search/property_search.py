"""Property search: crystals of the registry that meet constraints on properties, known or predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ecdreg.results import Results
from registry.properties import PROPERTIES
from registry.search.constraints import Constraint, Objective, PropertyEstimate, parse_constraint, parse_objective

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection
    from registry.jobs.progress import Progress
    from train.discovery.property_search import Elements, FoundMaterials

__all__ = [
    "FoundCrystal",
    "FoundCrystals",
    "PropertyEstimate",
    "element_filter",
    "parse_constraints",
    "parse_objectives",
    "search",
    "value_dict",
]


@dataclass(frozen=True)
class FoundCrystal:
    """One crystal of the answer of a property search."""

    rank: int
    """From 1."""
    source: str
    source_id: str
    formula: str
    prototype: str | None
    space_group_symbol: str | None
    meets: bool
    """Whether its values meet every constraint."""
    front: int
    """Pareto front, from 1: over the objectives among those that meet the constraints, else over what they lack."""
    chance: float | None
    """Probability that all constraints are met, as if the errors of the properties were independent; None without
    intervals."""
    out_of_domain: bool | None
    """Whether a model that predicts a value of it was trained on nothing like it; None where all is known."""
    values: Mapping[str, PropertyEstimate]
    """Value of every property of the constraints and objectives, in the unit of the property."""

    @property
    def id(self) -> str:
        """``source:id``"""
        return f"{self.source}:{self.source_id}"

    def to_dict(self) -> dict[str, Any]:
        """The row of the JSON output."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return fields | {"values": {name: value_dict(value, name) for name, value in self.values.items()}}

    def to_flat(self) -> dict[str, Any]:
        """The row of the CSV output: four columns for each property."""
        row: dict[str, Any] = {
            "rank": self.rank,
            "id": self.id,
            "formula": self.formula,
            "prototype": self.prototype,
            "met": self.meets,
            "front": self.front,
            "chance": self.chance,
            "out_of_domain": self.out_of_domain,
        }
        for name, value in self.values.items():
            row |= {name: value.value, f"{name}_from": "known" if value.known else "predicted"}
            row |= {f"{name}_lower": value.lower, f"{name}_upper": value.upper}
        return row


@dataclass(frozen=True)
class FoundCrystals(Results[FoundCrystal]):
    """The answer of a property search."""

    properties: tuple[str, ...] = ()
    """Properties of the constraints and objectives, each once."""
    n_candidates: int = 0
    """Crystals that pass the filters."""
    n_met: int = 0
    """Of these, the number that meet every constraint."""


def search(
    registry: RegistryConnection,
    constraints: Sequence[str | Constraint] = (),
    objectives: Sequence[str | Objective] = (),
    *,
    elements_any: str | Sequence[str] = (),
    elements_all: str | Sequence[str] = (),
    without: str | Sequence[str] = (),
    where: str | None = None,
    k: int = 10,
    known_only: bool = False,
    split: str | None = None,
    progress: Progress | None = None,
) -> FoundCrystals:
    """Find the crystals of the registry that meet constraints on properties, in the order of objectives.

    Known values count first; where a value is unknown, or suspect, the model that is best in cross-validation predicts
    it, with its 90 % interval. Crystals that meet the constraints come first, the Pareto front over the objectives
    before the next ones; if fewer than ``k`` do, the nearest misses follow.

    Parameters
    ----------
    registry
        An open registry; predictions that are made are stored.
    constraints
        Ranges of properties, as ``"k_vrh=250:300"`` or ``"k_vrh=250:"``.
    objectives
        ``"k_vrh=max"``, ``"efermi=min"`` or ``"efermi=6"`` (as near as possible).
    elements_any, elements_all, without
        Symbols: at least one of these, all of these, none of these; a list, or a string as ``"Ti,Zr"``.
    where
        Filter on the columns of ``v_materials``.
    k
        Number of crystals.
    known_only
        Use known values alone, no predictions.
    split
        Split of the cross-validation that chooses the models; None: ``default`` where models have it, else the newest.
    progress
        Receives the progress of features that are computed.

    Returns
    -------
    FoundCrystals
        Notes: how many meet the constraints, which models predict, and what could not be answered.

    Raises
    ------
    ConfigurationError
        If there is neither a constraint nor an objective, one cannot be parsed, a property has two, an element does
        not exist, or ``k`` is less than 1.
    QueryError
        If the filter cannot be used.
    """
    ranges, senses = parse_constraints(constraints), parse_objectives(objectives)
    elements = element_filter(elements_any, elements_all, without)
    from train.discovery.property_search import PropertyQuery, check_constraints, find_materials

    names = check_constraints(ranges, senses)
    answer = find_materials(
        registry.engine,
        registry.settings,
        PropertyQuery(ranges, senses, elements, where=where, k=k),
        predict=not known_only,
        split=split,
        progress=progress,
    )
    rows = tuple(
        FoundCrystal(
            rank=rank,
            source=one.source,
            source_id=one.source_id,
            formula=one.formula,
            prototype=one.prototype,
            space_group_symbol=one.space_group_symbol,
            meets=one.meets,
            front=one.front,
            chance=one.chance,
            out_of_domain=one.out_of_domain,
            values=one.values,
        )
        for rank, one in enumerate(answer.found, start=1)
    )
    return FoundCrystals(
        rows,
        tuple(_notes(answer, constrained=bool(ranges))),
        properties=tuple(names),
        n_candidates=answer.n_candidates,
        n_met=answer.n_met,
    )


def parse_constraints(constraints: Sequence[str | Constraint]) -> list[Constraint]:
    """Constraints from text, as ``"k_vrh=250:300"``; those that are parsed already stay as they are.

    Raises
    ------
    ConfigurationError
        If one cannot be parsed; see :func:`registry.search.constraints.parse_constraint`.
    """
    return [parse_constraint(one) if isinstance(one, str) else one for one in _listed(constraints)]


def parse_objectives(objectives: Sequence[str | Objective]) -> list[Objective]:
    """Objectives from text, as ``"k_vrh=max"``; those that are parsed already stay as they are.

    Raises
    ------
    ConfigurationError
        If one cannot be parsed; see :func:`registry.search.constraints.parse_objective`.
    """
    return [parse_objective(one) if isinstance(one, str) else one for one in _listed(objectives)]


def element_filter(any_of: str | Sequence[str], all_of: str | Sequence[str], none_of: str | Sequence[str]) -> Elements:
    """The elements that a crystal may have.

    Parameters
    ----------
    any_of, all_of, none_of
        Symbols: at least one of these, all of these, none of these; a list, or a string as ``"Ti,Zr"``.

    Raises
    ------
    ConfigurationError
        If one is not an element, or is required and excluded.
    """
    from train.discovery.property_search import Elements

    lists = [one.split(",") if isinstance(one, str) else one for one in (any_of, all_of, none_of)]
    return Elements(*(tuple(symbol.strip() for symbol in one if symbol.strip()) for one in lists))


def value_dict(value: PropertyEstimate, name: str) -> dict[str, Any]:
    """A value of a property in the JSON output: with its unit, and whether it is known or predicted."""
    return {
        "value": value.value,
        "unit": PROPERTIES[name].unit,
        "from": "known" if value.known else "predicted",
        "lower": value.lower,
        "upper": value.upper,
        "model": value.model,
    }


def _listed(given: Sequence[Any]) -> Sequence[Any]:
    return [given] if isinstance(given, str) else given


def _notes(answer: FoundMaterials, *, constrained: bool) -> list[str]:
    notes = []
    if constrained:
        notes.append(f"{answer.n_met} of {answer.n_candidates} crystals meet every constraint")
        if 0 < answer.n_met < len(answer.found):
            notes.append('those with "no" in the column met are the nearest misses')
    elif not answer.found:
        notes.append(f"no crystal among {answer.n_candidates}")
    notes += [
        f"{name} is predicted by {one.model.name} where it is not known (RMSE {one.cv_rmse:.3g}"
        f" {PROPERTIES[name].unit} in cross-validation of {one.n_cv} crystals, split {one.split})"
        for name, one in answer.models.items()
    ]
    return notes + answer.notes
