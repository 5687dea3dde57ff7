"""Search for crystals by constraints and objectives on properties, known or predicted.

A known value takes precedence over a prediction, unless it is suspect. The model of a property is the best in
cross-validation (:func:`train.discovery.best_models.best_models`) whose inputs the crystal has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, bindparam, not_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session
from sqlalchemy.types import Text

from registry.errors import ConfigurationError, IncompatibleInputError, InputError
from registry.formulas import composition
from registry.jobs.progress import Progress
from registry.properties import PROPERTIES
from registry.search.constraints import (
    Constraint,
    Objective,
    PropertyEstimate,
    probability,
    rank_by_constraints,
    violation,
)
from registry.search.filters import materials, parse
from registry.settings import Settings
from train.config.config import TrainConfig
from train.config.stored import config_of
from train.discovery.best_models import RankedModel, best_models
from train.features.crystals import read_crystals
from train.prediction.stored import predict_crystals

__all__ = ["Elements", "FoundMaterial", "FoundMaterials", "PropertyQuery", "check_constraints", "find_materials"]


@dataclass(frozen=True)
class Elements:
    """Filter on the elements of a crystal."""

    any_of: tuple[str, ...] = ()
    """At least one of these is required."""
    all_of: tuple[str, ...] = ()
    """All of these are required."""
    none_of: tuple[str, ...] = ()
    """None of these is allowed."""

    def __post_init__(self) -> None:
        for symbol in (*self.any_of, *self.all_of, *self.none_of):
            try:
                alone = list(composition(symbol)) == [symbol]
            except InputError:
                alone = False
            if not alone:
                raise ConfigurationError(f"{symbol[:40]!r} is not an element; give symbols such as Ti,Zr")
        for required in (self.any_of, self.all_of):
            if required and set(required) <= set(self.none_of):
                raise ConfigurationError(f"{', '.join(required)} is required and excluded; remove one of the two")

    def allow(self, symbols: Sequence[str]) -> bool:
        """Whether a crystal of these elements passes the filter."""
        present = set(symbols)
        return (
            (not self.any_of or bool(present & set(self.any_of)))
            and set(self.all_of) <= present
            and not present & set(self.none_of)
        )

    def conditions(self) -> list[ColumnElement[bool]]:
        """The filter as conditions on ``v_materials``."""
        elements = materials().c.elements

        def listed(symbols: tuple[str, ...]) -> ColumnElement[Any]:
            return bindparam(None, list(symbols), ARRAY(Text()), unique=True)

        found: list[ColumnElement[bool]] = []
        if self.any_of:
            found.append(elements.bool_op("&&")(listed(self.any_of)))
        if self.all_of:
            found.append(elements.bool_op("@>")(listed(self.all_of)))
        if self.none_of:
            found.append(not_(elements.bool_op("&&")(listed(self.none_of))))
        return found


@dataclass(frozen=True)
class FoundMaterial:
    """A crystal in the result of a search by properties."""

    crystal_id: int
    source: str
    source_id: str
    formula: str
    space_group_symbol: str | None
    prototype: str | None
    values: Mapping[str, PropertyEstimate]
    """Values of all properties of the constraints and objectives, known or predicted."""
    meets: bool
    """Whether all constraints are met by these values."""
    front: int
    """Pareto front, from 1: of the objectives among crystals that meet the constraints, otherwise of the violations."""
    chance: float | None
    """Probability that all constraints are met, for independent errors; None without intervals."""
    out_of_domain: bool | None
    """Whether the crystal is outside the domain of a model that predicts one of its values; None if all are known."""


@dataclass(frozen=True)
class FoundMaterials:
    """Result of a search by properties."""

    found: list[FoundMaterial]
    n_candidates: int
    """Number of crystals that pass the filters."""
    n_met: int
    """Number of candidates that meet every constraint."""
    models: Mapping[str, RankedModel]
    """Best model of each property with predicted values."""
    notes: list[str]
    """Remarks on values that are neither known nor predicted."""


def check_constraints(constraints: Sequence[Constraint], objectives: Sequence[Objective]) -> list[str]:
    """Check constraints and objectives, and return their properties without duplicates.

    Raises
    ------
    ConfigurationError
        If there is neither, or a property has two constraints or two objectives.
    """
    if not constraints and not objectives:
        raise ConfigurationError("there is no constraint and no objective; give k_vrh=250:300 or k_vrh=max")
    for kind, names in (
        ("constraints", [one.property for one in constraints]),
        ("objectives", [one.property for one in objectives]),
    ):
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigurationError(f"two {kind} are on {min(twice)}; give one")
    return list(dict.fromkeys([one.property for one in constraints] + [one.property for one in objectives]))


@dataclass(frozen=True)
class PropertyQuery:
    """Query of a search by properties; :mod:`registry.search.constraints` describes the ranking.

    Raises
    ------
    ConfigurationError
        As :func:`check_constraints`; or if ``k`` is less than 1.
    """

    constraints: Sequence[Constraint]
    objectives: Sequence[Objective] = ()
    elements: Elements = Elements()
    """Filter on elements."""
    where: str | None = None
    """Filter in the syntax of :mod:`registry.search.filters`."""
    k: int = 10
    """Number of results."""

    def __post_init__(self) -> None:
        check_constraints(self.constraints, self.objectives)
        if self.k < 1:
            raise ConfigurationError(f"k is {self.k}; give at least 1")


def find_materials(
    engine: Engine,
    settings: Settings,
    query: PropertyQuery,
    *,
    predict: bool = True,
    split: str | None = None,
    progress: Progress | None = None,
) -> FoundMaterials:
    """Search the registry for crystals by constraints and objectives on properties.

    Parameters
    ----------
    engine
        New predictions are stored through it.
    settings
        Location of the weights.
    query
        Constraints, objectives and filters.
    predict
        Whether unknown values are predicted.
    split
        Name of the split that models are ranked on; None for ``default``.
    progress
        Reports features that are computed.

    Raises
    ------
    QueryError
        If the filter cannot be used.
    """
    constraints, objectives = query.constraints, query.objectives
    names = check_constraints(constraints, objectives)
    with Session(engine) as session:
        rows = _candidates(session, query.elements, query.where)
    values = [_known(row, names) for row in rows]
    # A crystal that a known value rules out needs no predictions.
    possible = [i for i in range(len(rows)) if not _ruled_out(constraints, values[i])]
    notes: list[str] = []
    models: dict[str, RankedModel] = {}
    out_of_domain: dict[int, bool] = {}
    if predict:
        for name in names:
            missing = [i for i in possible if name not in values[i]]
            if missing:
                predictions, best, note = _predicted(
                    engine, settings, name, [int(rows[i]["revision_id"]) for i in missing], split, progress
                )
                notes += [note] if note else []
                if best is not None:
                    models[name] = best
                for i in missing:
                    if (one := predictions.get(int(rows[i]["revision_id"]))) is not None:
                        values[i][name], flag = one
                        out_of_domain[i] = out_of_domain.get(i, False) or bool(flag)
    complete = [i for i in range(len(rows)) if len(values[i]) == len(names)]
    for name in names:
        lost = sum(name not in values[i] for i in possible)
        if lost:
            notes.append(f"{lost} crystals that could meet the constraints have no {name} and are excluded")
    ordered = rank_by_constraints(constraints, objectives, [values[i] for i in complete])
    found = []
    for place, meets, front in ordered[: query.k]:
        i = complete[place]
        row, own = rows[i], values[i]
        chances = [probability(constraint, own[constraint.property]) for constraint in constraints]
        total = 1.0
        for factor in chances:
            total *= 1.0 if factor is None else factor
        found.append(
            FoundMaterial(
                **{
                    n: row[n]
                    for n in ("crystal_id", "source", "source_id", "formula", "space_group_symbol", "prototype")
                },
                values=own,
                meets=meets,
                front=front,
                chance=None if None in chances else total,
                out_of_domain=out_of_domain.get(i),
            )
        )
    return FoundMaterials(found, len(rows), sum(meets for _, meets, _ in ordered), models, notes)


def _candidates(session: Session, elements: Elements, where: str | None) -> list[dict[str, Any]]:
    columns = ("crystal_id", "revision_id", "source", "source_id", "formula", "space_group_symbol", "prototype")
    view = materials()
    query = select(*(view.c[name] for name in (*columns, "suspect", *PROPERTIES)))
    for condition in elements.conditions():
        query = query.where(condition)
    if where is not None:
        query = query.where(parse(where))
    return [dict(row) for row in session.execute(query.order_by(view.c.crystal_id)).mappings()]


def _known(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, PropertyEstimate]:
    suspect = set(row["suspect"] or ())
    return {
        name: PropertyEstimate(float(row[name]), known=True)
        for name in names
        if row[name] is not None and name not in suspect
    }


def _ruled_out(constraints: Sequence[Constraint], values: Mapping[str, PropertyEstimate]) -> bool:
    return any(violation(one, values[one.property].value) > 0 for one in constraints if one.property in values)


def _predicted(
    engine: Engine,
    settings: Settings,
    name: str,
    revision_ids: list[int],
    split: str | None,
    progress: Progress | None,
) -> tuple[dict[int, tuple[PropertyEstimate, bool | None]], RankedModel | None, str | None]:
    """Predictions and out-of-domain flags by revision, the best model, and a remark if there is no model."""
    with Session(engine) as session:
        ranked = best_models(session, name, split=split)
        readable = {
            place: _readable(session, config_of(one.model.experiment), revision_ids) for place, one in enumerate(ranked)
        }
        session.expunge_all()  # used after the session is closed
    if not ranked:
        return {}, None, f"there is no model of {name}; `ecdreg train baseline --target {name}` trains one"
    predictions: dict[int, tuple[PropertyEstimate, bool | None]] = {}
    for place, one in enumerate(ranked):
        ids = [rid for rid in revision_ids if rid not in predictions and rid in readable[place]]
        if not ids:
            continue
        try:
            results = predict_crystals(engine, settings, one.model, ids, progress=progress)
        except IncompatibleInputError:
            # One crystal with an incompatible input (a slice of another level of theory) fails the batch; the next
            # model may accept all.
            if place + 1 < len(ranked):
                continue
            raise
        for rid, result in zip(ids, results, strict=True):
            value = PropertyEstimate(
                result.value, known=False, lower=result.lower, upper=result.upper, model=one.model.name
            )
            predictions[rid] = value, result.out_of_domain
    return predictions, ranked[0], None


def _readable(session: Session, config: TrainConfig, revision_ids: Sequence[int]) -> set[int]:
    """Revisions that have what a model reads; the model itself checks whether it is what it was trained on."""
    crystals = read_crystals(session, config.inputs, revision_ids)
    columns = list(crystals.columns.values())
    return {
        int(rid)
        for row, rid in enumerate(crystals.revision_ids)
        if all(column.sha256[row] is not None for column in columns)
    }
