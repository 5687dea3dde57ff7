"""Ranking of proposed crystals by models of composition and text, because proposals have no density.

Models of the composition predict the properties of all proposals; the highest ranked are then described by texts, and
models of texts predict them as well. The best model in cross-validation counts.
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
from train.config.stored import config_of
from train.discovery.best_models import RankedModel, best_models
from train.prediction.predictor import Predictor

__all__ = ["COMPOSITION_ALONE", "NO_DENSITY", "PredictedProperties", "PropertyModels", "RankedCrystal", "rank"]

COMPOSITION_ALONE = frozenset({"composition"})
"""Modalities of models that read the formula only."""

NO_DENSITY = frozenset({"composition", "text"})
"""Modalities of models that need no density."""


_BATCH = 200
"""Crystals that are predicted at once."""


@dataclass(frozen=True)
class PredictedProperties:
    """Predictions of models for one crystal, by property."""

    values: Mapping[str, PropertyEstimate]
    """Predictions of the best model with the required inputs."""
    others: Mapping[str, tuple[PropertyEstimate, ...]] = field(default_factory=dict)
    """Predictions of the other models, in order of their score."""
    out_of_domain: bool | None = None
    """Whether the crystal is outside the domain of one of the best models."""


class PropertyModels:
    """Loaded models of some properties that need no density.

    Parameters
    ----------
    engine
        Missing features for the intervals are computed and stored through it.
    settings
        Location of the weights.
    names
        Names of properties.
    split
        Name of the split that models are ranked on; None for ``default``.

    Raises
    ------
    NotFoundError
        If one of the properties has no model of the composition.
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
                        f"there is no model of {name} that reads the composition only, which ranks proposals;"
                        f" `ecdreg train baseline --target {name}` trains one"
                    )
            session.expunge_all()
        for models in self._loaded.values():
            for _, _, predictor in models:
                predictor.calibrate(engine)

    @property
    def models(self) -> dict[str, list[RankedModel]]:
        """Models of each property, the best first."""
        return {name: [ranked for ranked, _, _ in models] for name, models in self._loaded.items()}

    @property
    def read_texts(self) -> bool:
        """Whether any model reads texts."""
        return any(needs - COMPOSITION_ALONE for models in self._loaded.values() for _, needs, _ in models)

    @property
    def best_read_texts(self) -> bool:
        """Whether the best model of any property reads texts, so that predictions depend on the description."""
        return any(models[0][1] - COMPOSITION_ALONE for models in self._loaded.values())

    def predict(self, crystals: Sequence[CrystalData], *, modalities: Collection[str]) -> list[PredictedProperties]:
        """Predict the properties of N crystals.

        Parameters
        ----------
        crystals
            Crystals, with descriptions if ``modalities`` includes texts.
        modalities
            Modalities of the models that are used: :data:`COMPOSITION_ALONE` or :data:`NO_DENSITY`.
        """
        if not crystals:
            return []
        values: list[dict[str, list[PropertyEstimate]]] = [{} for _ in crystals]
        out_of_domain: list[bool | None] = [None for _ in crystals]
        for name, models in self._loaded.items():
            for ranked, needs, predictor in models:
                if not needs <= set(modalities):
                    continue
                for i, result in enumerate(predictor.predict(crystals)):
                    first = name not in values[i]
                    values[i].setdefault(name, []).append(
                        PropertyEstimate(
                            result.value, known=False, lower=result.lower, upper=result.upper, model=ranked.model.name
                        )
                    )
                    if first and result.out_of_domain is not None:
                        out_of_domain[i] = bool(out_of_domain[i]) or result.out_of_domain
        return [
            PredictedProperties({n: v[0] for n, v in one.items()}, {n: tuple(v[1:]) for n, v in one.items()}, flag)
            for one, flag in zip(values, out_of_domain, strict=True)
        ]


@dataclass(frozen=True)
class RankedCrystal:
    """A crystal with its rank by constraints and objectives."""

    place: int
    """Index of the crystal in the input, from 0."""
    predicted: PredictedProperties
    meets: bool
    """Whether the predicted values meet every constraint."""
    front: int
    """Pareto front, from 1; see :func:`registry.search.constraints.rank_by_constraints`."""
    chance: float | None
    """Probability that all constraints are met, for independent errors; None without intervals."""
    described: bool
    """Whether models of texts predicted it as well."""


def rank(
    models: PropertyModels,
    crystals: Sequence[CrystalData],
    *,
    constraints: Sequence[Constraint],
    objectives: Sequence[Objective],
    describe: Callable[[int], CrystalData] | None = None,
    shortlist: int = 0,
    progress: Progress | None = None,
) -> list[RankedCrystal]:
    """Rank proposed crystals: all by their compositions, then the highest ranked by their descriptions.

    Parameters
    ----------
    models
        Models of the properties.
    crystals
        N crystals, of which only the formula is used.
    constraints, objectives
        Constraints and objectives.
    describe
        Function from an index to the crystal with its descriptions; None for no descriptions.
    shortlist
        Number of crystals that are described, if a model reads texts.
    progress
        Reports each crystal.
    """
    progress = progress or Silent()
    progress.begin("compositions", len(crystals))
    predictions: list[PredictedProperties] = []
    for start in range(0, len(crystals), _BATCH):
        batch = crystals[start : start + _BATCH]
        predictions += models.predict(batch, modalities=COMPOSITION_ALONE)
        progress.advance(len(batch))
    progress.end()
    first = [i for i, _, _ in rank_by_constraints(constraints, objectives, [one.values for one in predictions])]
    described: set[int] = set()
    if describe is not None and models.read_texts and shortlist:
        progress.begin("descriptions", min(shortlist, len(first)))
        for i in first[:shortlist]:
            try:
                (predictions[i],) = models.predict([describe(i)], modalities=NO_DENSITY)
                described.add(i)
            except InputError as error:
                progress.message(f"{crystals[i].formula}: {error}")
            progress.advance(1, crystals[i].formula)
        progress.end()
    # Only predictions of the same models are comparable: if texts matter, described crystals are ranked first.
    groups = [first]
    if models.best_read_texts:
        groups = [[i for i in first if i in described], [i for i in first if i not in described]]
    ranked = []
    for group in groups:
        for place, meets, front in rank_by_constraints(constraints, objectives, [predictions[i].values for i in group]):
            i = group[place]
            ranked.append(
                RankedCrystal(i, predictions[i], meets, front, _chance(constraints, predictions[i]), i in described)
            )
    return ranked


def _chance(constraints: Sequence[Constraint], predicted: PredictedProperties) -> float | None:
    total = 1.0
    for constraint in constraints:
        one = probability(constraint, predicted.values[constraint.property])
        if one is None:
            return None
        total *= one
    return total if constraints else None
