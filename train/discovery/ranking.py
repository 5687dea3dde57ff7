"""What models say of crystals that nobody has made: by composition and text alone, for there is no density.

All are said by models that read a composition; the most promising are then described in words, and the models that read
those speak too. Which of them counts is decided by cross-validation, as everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from registry.crystals import CrystalData
from registry.errors import InputError, NotFoundError
from registry.jobs.progress import Progress, Silent
from registry.search.constraints import Constraint, Objective, PropertyEstimate, probability, rank_by_constraints
from registry.settings import Settings
from train.discovery.best_models import RankedModel, best_models
from train.experiments.results import config_of
from train.prediction.predictor import Predictor

__all__ = ["COMPOSITION_ALONE", "NO_DENSITY", "PredictedProperties", "PropertyModels", "Ranked", "rank"]

COMPOSITION_ALONE = frozenset({"composition"})
"""Modalities of the models that need a formula and nothing else."""

NO_DENSITY = frozenset({"composition", "text"})
"""Modalities of the models that do without a density."""


_BATCH = 200


@dataclass(frozen=True)
class PredictedProperties:
    """What models say of one crystal, by property."""

    values: Mapping[str, PropertyEstimate]
    """By the best model that could read the crystal."""
    others: Mapping[str, tuple[PropertyEstimate, ...]] = field(default_factory=dict)
    """By the other models, the better first."""
    out_of_domain: bool | None = None
    """Whether a model that counts has learnt from nothing like it."""


class PropertyModels:
    """The models of some properties that do without a density, loaded once.

    Parameters
    ----------
    engine
        Features that intervals need are computed, and kept.
    settings
        Where weights are kept.
    names
        Properties.
    split
        Split whose cross-validation ranks the models; None: ``default``.

    Raises
    ------
    NotFoundError
        If no model says one of the properties from a composition alone.
    """

    def __init__(self, engine: Engine, settings: Settings, names: Sequence[str], *, split: str | None = None) -> None:
        self._loaded: dict[str, list[tuple[RankedModel, frozenset[str], Predictor]]] = {}
        with Session(engine) as session:
            for name in names:
                self._loaded[name] = []
                for ranked in best_models(session, name, split=split):
                    needs = frozenset(config_of(ranked.model.experiment).modalities) or COMPOSITION_ALONE
                    if needs <= NO_DENSITY:
                        predictor = Predictor.load(session, settings, ranked.model)
                        self._loaded[name].append((ranked, needs, predictor))
                if not any(needs <= COMPOSITION_ALONE for _, needs, _ in self._loaded[name]):
                    raise NotFoundError(
                        f"no model says {name} from a composition alone, which proposals are first ranked by;"
                        f" `ecdreg train baseline --target {name}` makes one"
                    )
            session.expunge_all()
        for models in self._loaded.values():
            for _, _, predictor in models:
                predictor.calibrate(engine)

    @property
    def models(self) -> dict[str, list[RankedModel]]:
        """By property, the models that speak, the best first."""
        return {name: [ranked for ranked, _, _ in models] for name, models in self._loaded.items()}

    @property
    def read_texts(self) -> bool:
        """Whether any of them reads texts."""
        return any(needs - COMPOSITION_ALONE for models in self._loaded.values() for _, needs, _ in models)

    @property
    def texts_count(self) -> bool:
        """Whether the best model of any property reads texts, so that a description changes what counts."""
        return any(models[0][1] - COMPOSITION_ALONE for models in self._loaded.values())

    def say(self, crystals: Sequence[CrystalData], *, modalities: Collection[str]) -> list[PredictedProperties]:
        """What the models say of N crystals.

        Parameters
        ----------
        crystals
            With descriptions, where ``modalities`` has texts.
        modalities
            What the models may read: :data:`COMPOSITION_ALONE` or :data:`NO_DENSITY`.
        """
        if not crystals:
            return []
        values: list[dict[str, list[PropertyEstimate]]] = [{} for _ in crystals]
        strange: list[bool | None] = [None for _ in crystals]
        for name, models in self._loaded.items():
            for ranked, needs, predictor in models:
                if not needs <= set(modalities):
                    continue
                for i, said in enumerate(predictor.predict(crystals)):
                    first = name not in values[i]
                    values[i].setdefault(name, []).append(
                        PropertyEstimate(
                            said.value, known=False, lower=said.lower, upper=said.upper, model=ranked.model.name
                        )
                    )
                    if first and said.out_of_domain is not None:
                        strange[i] = bool(strange[i]) or said.out_of_domain
        return [
            PredictedProperties({n: v[0] for n, v in one.items()}, {n: tuple(v[1:]) for n, v in one.items()}, flag)
            for one, flag in zip(values, strange, strict=True)
        ]


@dataclass(frozen=True)
class Ranked:
    """A crystal in the order in which it is wanted."""

    place: int
    """Row of the crystal among those that were ranked, from 0."""
    said: PredictedProperties
    meets: bool
    """Whether what counts meets every constraint."""
    front: int
    """Pareto front, from 1; see :func:`registry.search.constraints.rank_by_constraints`."""
    chance: float | None
    """Probability that all constraints are met, as if the properties erred independently; None without intervals."""
    described: bool
    """Whether models of texts have spoken, too."""


def rank(
    sayers: PropertyModels,
    crystals: Sequence[CrystalData],
    *,
    constraints: Sequence[Constraint],
    objectives: Sequence[Objective],
    describe: Callable[[int], CrystalData] | None = None,
    shortlist: int = 0,
    progress: Progress | None = None,
) -> list[Ranked]:
    """Order crystals that nobody has made: all by their composition, then the first of them by their descriptions.

    Parameters
    ----------
    sayers
        The models.
    crystals
        N crystals, of which the formula is read.
    constraints, objectives
        What is wanted.
    describe
        Gives the crystal of a row with its descriptions; None: nothing is described.
    shortlist
        How many are described, where a model reads texts.
    progress
        Told of each crystal.
    """
    progress = progress or Silent()
    progress.begin("compositions", len(crystals))
    said: list[PredictedProperties] = []
    for start in range(0, len(crystals), _BATCH):
        batch = crystals[start : start + _BATCH]
        said += sayers.say(batch, modalities=COMPOSITION_ALONE)
        progress.advance(len(batch))
    progress.end()
    first = [i for i, _, _ in rank_by_constraints(constraints, objectives, [one.values for one in said])]
    described: set[int] = set()
    if describe is not None and sayers.read_texts and shortlist:
        progress.begin("descriptions", min(shortlist, len(first)))
        for i in first[:shortlist]:
            try:
                (said[i],) = sayers.say([describe(i)], modalities=NO_DENSITY)
                described.add(i)
            except InputError as error:
                progress.message(f"{crystals[i].formula}: {error}")
            progress.advance(1, crystals[i].formula)
        progress.end()
    # Compared are those that the same models have spoken of: where texts count, the described ones, then the rest.
    groups = [first]
    if sayers.texts_count:
        groups = [[i for i in first if i in described], [i for i in first if i not in described]]
    ranked = []
    for group in groups:
        for place, meets, front in rank_by_constraints(constraints, objectives, [said[i].values for i in group]):
            i = group[place]
            ranked.append(Ranked(i, said[i], meets, front, _chance(constraints, said[i]), i in described))
    return ranked


def _chance(constraints: Sequence[Constraint], said: PredictedProperties) -> float | None:
    total = 1.0
    for constraint in constraints:
        one = probability(constraint, said.values[constraint.property])
        if one is None:
            return None
        total *= one
    return total if constraints else None
