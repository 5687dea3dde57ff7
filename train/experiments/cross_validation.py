"""Cross-validation of a configuration without writing anything, as a trial of a search does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from registry.checksums import json_sha256
from train.config.config import TrainConfig
from train.experiments.folds import FoldTrainer, TrainedTower
from train.experiments.rows import Rows
from train.experiments.stacking import out_of_fold_predictions
from train.features.batch import Batch
from train.featurizers.catalog import Featurizer
from train.models import metrics
from train.models.fitted import FitContext, FittedModel

__all__ = ["FoldScore", "TowerMemory", "cross_validate"]


@dataclass(frozen=True)
class FoldScore:
    """One fold, scored on its own rows."""

    fold: int
    rmse: float
    """In the unit of the target."""
    r2: float | None
    """None where the rows do not differ."""


@dataclass
class TowerMemory:
    """Towers that configurations of one search have in common, trained once for each fold."""

    towers: dict[str, TrainedTower] = field(default_factory=dict)
    """By checksum of the tower's configuration and the fold."""
    predictions: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """By the same key: predictions for the training rows of the fold."""


def cross_validate(
    config: TrainConfig,
    batch: Batch,
    rows: Rows,
    *,
    seed: int,
    targets: NDArray[np.float64] | None = None,
    backbones: Mapping[str, Featurizer] | None = None,
    memory: TowerMemory | None = None,
    on_fold: Callable[[FoldScore, Sequence[FoldScore]], None] | None = None,
) -> list[FoldScore]:
    """Train and score every fold, as :func:`train.experiments.run.run_experiment` does, and keep nothing.

    Parameters
    ----------
    config
        Configuration of the model; the towers of a stack are trained with it.
    batch, rows
        The cross-validated rows of a split, N of them, in one order.
    seed
        Seed of the experiment.
    targets
        (N, 1 + A) where there are auxiliary targets; None: the values of the rows.
    backbones
        Featurizers by modality: a regressor reads their groups of features, fine-tuning trains copies of them.
    memory
        Towers of stacks that are joined by a regressor; filled, and read where another configuration has the same.
    on_fold
        Receives each fold as it is scored, with all so far; an exception of it ends the cross-validation.
    """
    trainer = FoldTrainer(
        config, batch, rows, rows.values if targets is None else targets, seed, backbones=dict(backbones or {})
    )
    if config.is_stack and not config.joins_features:
        trainer = _with_towers(trainer, TowerMemory() if memory is None else memory)
    scores: list[FoldScore] = []
    for fold in [int(fold) for fold in np.unique(rows.folds)]:
        *_, model = trainer.fit(fold)
        scored = trainer.scored(fold)
        scores.append(_score(fold, rows.values[scored], model.predict(batch.take(scored))))
        if on_fold is not None:
            on_fold(scores[-1], scores)
    return scores


class _FreshTowers:
    """Towers of a stack that are trained where they are needed; see :class:`train.experiments.folds.TowerSource`."""

    def __init__(self, trainer: FoldTrainer, memory: TowerMemory) -> None:
        self._trainer = trainer
        self._memory = memory

    def tower(self, modality: str, fold: int | None) -> TrainedTower:
        """The tower of a fold."""
        if self._trainer.config.is_network:  # the stack goes on training its weights: they are not shared
            return self._train(modality, fold)
        key = self._key(modality, fold)
        if key not in self._memory.towers:
            self._memory.towers[key] = self._train(modality, fold)
        return self._memory.towers[key]

    def predictions(
        self, modality: str, fold: int | None, context: FitContext, groups: list[str]
    ) -> NDArray[np.float64]:
        """Predictions of towers that had not seen the row."""
        key = self._key(modality, fold)
        if key not in self._memory.predictions:
            self._memory.predictions[key] = out_of_fold_predictions(context, groups=groups)
        return self._memory.predictions[key]

    def _train(self, modality: str, fold: int | None) -> TrainedTower:
        epochs: dict[str, int] = {}
        model: FittedModel | None = None
        for model in self._trainer.of_tower(modality).fit(fold):
            epochs[model.phase] = 1 if model.result is None else model.result.best_epoch
        assert model is not None
        return TrainedTower(model, epochs)

    def _key(self, modality: str, fold: int | None) -> str:
        return json_sha256([self._trainer.config.tower_config(modality).to_dict(), fold])


def _with_towers(trainer: FoldTrainer, memory: TowerMemory) -> FoldTrainer:
    return replace(trainer, towers=_FreshTowers(trainer, memory))


def _score(fold: int, truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> FoldScore:
    r2 = None if np.ptp(truth) == 0 else metrics.r2(truth, predicted)
    return FoldScore(fold, metrics.rmse(truth, predicted), r2)
