"""What models say of crystals that nobody has made: by composition and text alone, for there is no density.

All are said by models that read a composition; the most promising are then described in words, and the models that read
those speak too. Which of them counts is decided by cross-validation, as everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from registry.best_models import RankedModel, best_models
from registry.crystals import CrystalData
from registry.errors import NotFoundError
from registry.settings import Settings
from registry.wishes import Value
from train.inference import Predictor
from train.results import config_of

__all__ = ["COMPOSITION_ALONE", "NO_DENSITY", "Said", "Sayers"]

COMPOSITION_ALONE = frozenset({"composition"})
"""Modalities of the models that need a formula and nothing else."""

NO_DENSITY = frozenset({"composition", "text"})
"""Modalities of the models that do without a density."""


@dataclass(frozen=True)
class Said:
    """What models say of one crystal, by property."""

    values: Mapping[str, Value]
    """By the best model that could read the crystal."""
    others: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    """By the other models, the better first."""
    out_of_domain: bool | None = None
    """Whether a model that counts has learnt from nothing like it."""


class Sayers:
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
                    needs = frozenset(config_of(ranked.model.experiment).towers) or COMPOSITION_ALONE
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

    def say(self, crystals: Sequence[CrystalData], *, modalities: Collection[str]) -> list[Said]:
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
        values: list[dict[str, list[Value]]] = [{} for _ in crystals]
        strange: list[bool | None] = [None for _ in crystals]
        for name, models in self._loaded.items():
            for ranked, needs, predictor in models:
                if not needs <= set(modalities):
                    continue
                for i, said in enumerate(predictor.predict(crystals)):
                    first = name not in values[i]
                    values[i].setdefault(name, []).append(
                        Value(said.value, known=False, lower=said.lower, upper=said.upper, model=ranked.model.name)
                    )
                    if first and said.out_of_domain is not None:
                        strange[i] = bool(strange[i]) or said.out_of_domain
        return [
            Said({n: v[0] for n, v in one.items()}, {n: tuple(v[1:]) for n, v in one.items()}, flag)
            for one, flag in zip(values, strange, strict=True)
        ]
