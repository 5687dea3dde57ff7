"""Crystals by constraint: who has the wished properties, as the registry knows them, and as models say where it does not.

A known value always counts before a prediction; a suspect one is not believed, and is predicted instead. Which model
says a property is decided by cross-validation (:func:`train.discovery.best_models.best_models`); where the best one cannot
read a crystal (no density, no text), the next best says it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, bindparam, not_, select, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
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
from train.discovery.best_models import RankedModel, best_models
from train.experiments.results import config_of
from train.prediction.stored import predict_crystals

__all__ = ["Elements", "Found", "FoundMaterials", "check_constraints", "find_materials"]


@dataclass(frozen=True)
class Elements:
    """Which elements a crystal may have."""

    any_of: tuple[str, ...] = ()
    """At least one of these."""
    all_of: tuple[str, ...] = ()
    """Every one of these."""
    none_of: tuple[str, ...] = ()
    """Not one of these."""

    def __post_init__(self) -> None:
        for symbol in (*self.any_of, *self.all_of, *self.none_of):
            try:
                alone = list(composition(symbol)) == [symbol]
            except InputError:
                alone = False
            if not alone:
                raise ConfigurationError(f"{symbol[:40]!r} is no element; give symbols with commas between, as Ti,Zr")
        for wanted in (self.any_of, self.all_of):
            if wanted and set(wanted) <= set(self.none_of):
                raise ConfigurationError(f"{', '.join(wanted)} is asked for and excluded; leave out one of the two")

    def allow(self, symbols: Sequence[str]) -> bool:
        """Whether a crystal of these elements may be in the answer."""
        there = set(symbols)
        return (
            (not self.any_of or bool(there & set(self.any_of)))
            and set(self.all_of) <= there
            and not there & set(self.none_of)
        )

    def conditions(self) -> list[ColumnElement[bool]]:
        """The same on ``v_materials``."""
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
class Found:
    """A crystal in the answer to a constraint."""

    crystal_id: int
    source: str
    source_id: str
    formula: str
    space_group_symbol: str | None
    prototype: str | None
    values: Mapping[str, PropertyEstimate]
    """Every wished and preferred property, known or predicted."""
    meets: bool
    """Whether all constraints are met by these values."""
    front: int
    """Pareto front, from 1: over the objectives among those that meet the constraints, else over what they lack."""
    chance: float | None
    """Probability that all constraints are met, as if the properties erred independently; None without intervals."""
    out_of_domain: bool | None
    """Whether a model that says a value of it has learnt from nothing like it; None where all is known."""


@dataclass(frozen=True)
class FoundMaterials:
    """The answer to a constraint."""

    found: list[Found]
    n_candidates: int
    """Crystals that the filters let through."""
    n_met: int
    """Of these, how many meet every constraint."""
    models: Mapping[str, RankedModel]
    """The best model of each property that something had to be predicted of."""
    notes: list[str]
    """What could not be answered, and why."""


def check_constraints(constraints: Sequence[Constraint], objectives: Sequence[Objective]) -> list[str]:
    """The properties of constraints and objectives, each once.

    Raises
    ------
    ConfigurationError
        If there is none at all, or two constraints or two objectives are about one property.
    """
    if not constraints and not objectives:
        raise ConfigurationError("nothing is wished for; give a range (k_vrh=250:300) or a preference (k_vrh=max)")
    for what, names in (
        ("constraints", [w.property for w in constraints]),
        ("objectives", [p.property for p in objectives]),
    ):
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigurationError(f"two {what} are about {min(twice)}; give one")
    return list(dict.fromkeys([w.property for w in constraints] + [p.property for p in objectives]))


def find_materials(
    engine: Engine,
    settings: Settings,
    *,
    constraints: Sequence[Constraint],
    objectives: Sequence[Objective] = (),
    elements: Elements | None = None,
    where: str | None = None,
    k: int = 10,
    predict: bool = True,
    split: str | None = None,
    progress: Progress | None = None,
) -> FoundMaterials:
    """Crystals of the registry that have wished properties.

    Parameters
    ----------
    engine
        Predictions that are made are kept.
    settings
        Where weights are kept.
    constraints, objectives
        What is wanted; see :mod:`registry.search.constraints` for the order of the answer.
    elements
        Which elements a crystal may have.
    where
        A filter, as of :mod:`registry.search.filters`.
    k
        How many.
    predict
        Whether models say what is not known.
    split
        Split whose cross-validation chooses the models; None: ``default``.
    progress
        Told of features that are computed.

    Raises
    ------
    ConfigurationError
        If nothing is wished for, or a property twice; or if ``k`` is less than 1.
    QueryError
        If the filter cannot be used.
    """
    names = check_constraints(constraints, objectives)
    if k < 1:
        raise ConfigurationError(f"k is {k}; ask for at least 1 crystal")
    with Session(engine) as session:
        rows = _candidates(session, elements or Elements(), where)
    values = [_known(row, names) for row in rows]
    # What a known value rules out needs no prediction, unless nothing else is left to show.
    possible = [i for i in range(len(rows)) if not _ruled_out(constraints, values[i])]
    notes: list[str] = []
    models: dict[str, RankedModel] = {}
    strange: dict[int, bool] = {}
    if predict:
        for name in names:
            missing = [i for i in possible if name not in values[i]]
            if missing:
                said, best, note = _predicted(
                    engine, settings, name, [int(rows[i]["revision_id"]) for i in missing], split, progress
                )
                notes += [note] if note else []
                if best is not None:
                    models[name] = best
                for i in missing:
                    if (one := said.get(int(rows[i]["revision_id"]))) is not None:
                        values[i][name], flag = one
                        strange[i] = strange.get(i, False) or bool(flag)
    whole = [i for i in range(len(rows)) if len(values[i]) == len(names)]
    for name in names:
        lost = sum(name not in values[i] for i in possible)
        if lost:
            notes.append(f"{lost} crystals that could meet the constraints have no {name}, and are left out")
    ordered = rank_by_constraints(constraints, objectives, [values[i] for i in whole])
    found = []
    for place, meets, front in ordered[:k]:
        i = whole[place]
        row, own = rows[i], values[i]
        chances = [probability(constraint, own[constraint.property]) for constraint in constraints]
        total = 1.0
        for likely in chances:
            total *= 1.0 if likely is None else likely
        found.append(
            Found(
                **{
                    n: row[n]
                    for n in ("crystal_id", "source", "source_id", "formula", "space_group_symbol", "prototype")
                },
                values=own,
                meets=meets,
                front=front,
                chance=None if None in chances else total,
                out_of_domain=strange.get(i),
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
    return any(violation(w, values[w.property].value) > 0 for w in constraints if w.property in values)


def _predicted(
    engine: Engine,
    settings: Settings,
    name: str,
    revision_ids: list[int],
    split: str | None,
    progress: Progress | None,
) -> tuple[dict[int, tuple[PropertyEstimate, bool | None]], RankedModel | None, str | None]:
    """Predictions by revision, with whether each is out of domain; the best model; and what there is to say."""
    with Session(engine) as session:
        ranked = best_models(session, name, split=split)
        readable = {
            place: _readable(session, config_of(one.model.experiment), revision_ids) for place, one in enumerate(ranked)
        }
        session.expunge_all()  # used after the session is closed
    if not ranked:
        return {}, None, f"no model says {name}; `ecdreg train baseline --target {name}` makes one"
    said: dict[int, tuple[PropertyEstimate, bool | None]] = {}
    for place, one in enumerate(ranked):
        ids = [rid for rid in revision_ids if rid not in said and rid in readable[place]]
        if not ids:
            continue
        try:
            answers = predict_crystals(engine, settings, one.model, ids, progress=progress)
        except IncompatibleInputError:
            # Slices of another level of theory, say: one of them stops all, and the next model may read them.
            if place + 1 < len(ranked):
                continue
            raise
        for rid, answer in zip(ids, answers, strict=True):
            value = PropertyEstimate(
                answer.value, known=False, lower=answer.lower, upper=answer.upper, model=one.model.name
            )
            said[rid] = value, answer.out_of_domain
    return said, ranked[0], None


def _readable(session: Session, config: Any, revision_ids: Sequence[int]) -> set[int]:
    """Those that have what the towers of a model read; whether it is of the right kind the model itself checks."""
    needs = {
        "image": "EXISTS (SELECT FROM slice_images s JOIN image_recipes i ON i.id = s.recipe_id"
        " WHERE s.revision_id = r.id AND i.name = :recipe)",
        "text": "EXISTS (SELECT FROM descriptions d WHERE d.revision_id = r.id AND d.text_level = :text_level)",
        "density": "EXISTS (SELECT FROM densities d WHERE d.revision_id = r.id AND d.kind = 'total')",
    }
    conditions = [needs[tower] for tower in config.modalities if tower in needs]
    query = text(" AND ".join(["SELECT r.id FROM crystal_revisions r WHERE r.id = ANY(:ids)", *conditions]))
    parameters: dict[str, Any] = {"ids": list(revision_ids)}
    if "image" in config.modalities:
        parameters["recipe"] = config.recipe_name
    if "text" in config.modalities:
        parameters["text_level"] = config.text_level_name
    return set(session.scalars(query.bindparams(bindparam("ids", type_=ARRAY(BIGINT))), parameters))
