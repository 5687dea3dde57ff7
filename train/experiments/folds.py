"""Fold trainer: fits the model of a fold, or of the refit, on the cross-validated rows of a split.

Experiments and tuning train folds by this one class, so that a trial of a search is the cross-validation that an
experiment would do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from train.config.config import TrainConfig
from train.config.schema import NetworkJoin, StackConfig
from train.experiments.rows import Rows, inner_stop
from train.experiments.stacking import out_of_fold_features
from train.features.batch import Batch
from train.featurizers.catalog import Featurizer
from train.models.fitted import FitContext, FittedModel, OnEpoch, StackInputs, derived_seed
from train.models.fitting import fit_model
from train.models.network_fitting import FittedNetwork

__all__ = ["FoldTrainer", "TowerSource", "TrainedTower"]


@dataclass(frozen=True)
class TrainedTower:
    """A tower of a stack, fitted to the training rows of a fold."""

    model: FittedModel
    epochs: Mapping[str, int]
    """Epochs that each of its phases was trained for."""


class TowerSource(Protocol):
    """Source of the towers of a fold of a stack."""

    def tower(self, modality: str, fold: int | None) -> TrainedTower:
        """The tower of a fold; None: of the refit."""

    def predictions(
        self, modality: str, fold: int | None, context: FitContext, groups: list[str]
    ) -> NDArray[np.float64]:
        """Predictions of towers for rows that they had not seen, (N,), in the unit of the target.

        Parameters
        ----------
        modality
            Of the tower.
        fold
            The fold that is scored; None for the refit.
        context
            Of the tower of this fold, with the N rows that it was fitted to.
        groups
            (N,), the material of each row.
        """


@dataclass(frozen=True)
class FoldTrainer:
    """Fits models to the cross-validated rows of a split, fold by fold."""

    config: TrainConfig
    batch: Batch
    """Inputs of the N cross-validated rows."""
    rows: Rows
    """The rows themselves."""
    targets: NDArray[np.float64]
    """(N,), or (N, 1 + A) with auxiliary targets."""
    seed: int
    """Seed of the experiment."""
    backbones: Mapping[str, Featurizer] = field(default_factory=dict)
    """Featurizers by modality, where they are fine-tuned or their groups of features are needed."""
    towers: TowerSource | None = None
    """For a stack that does not join features."""
    on_epoch: OnEpoch | None = None

    def scored(self, fold: int) -> NDArray[np.int64]:
        """Places of the rows that a fold scores."""
        return np.flatnonzero(self.rows.folds == fold)

    def fitted(self, fold: int | None) -> NDArray[np.int64]:
        """Places of the rows that the model of a fold is fitted to: neither scored nor used by early stopping."""
        return self._parts(fold)[0]

    def fit(self, fold: int | None, *, epochs: Mapping[str, int] | None = None) -> Iterator[FittedModel]:
        """Fit the model of a fold from fresh weights; yields it after each phase, and changes it in the next.

        Parameters
        ----------
        fold
            The fold that is scored; None for the refit on all rows.
        epochs
            For the refit: epochs of each phase.

        Raises
        ------
        SplitError
            If too few rows are left.
        ModelError
            If the loss is not finite.
        """
        fitted, stop = self._parts(fold)
        context = FitContext(
            self.config,
            self.batch.take(fitted),
            self.targets[fitted],
            seed=derived_seed(self.seed, "fold", fold),
            stop=(self.batch.take(stop), self.rows.values[stop]) if len(stop) else None,
            epochs=epochs,
            backbones=self.backbones,
            on_epoch=self.on_epoch,
        )
        return fit_model(replace(context, stack=self._stack(fold, context, fitted)))

    def of_tower(self, modality: str) -> FoldTrainer:
        """The trainer of one tower of a stack alone, on the same rows and seed."""
        own = {name: one for name, one in self.backbones.items() if name == modality}
        return replace(self, config=self.config.tower_config(modality), backbones=own, towers=None)

    def _parts(self, fold: int | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of the rows to fit, and of the rows of early stopping."""
        if fold is None:
            return np.arange(len(self.rows)), np.empty(0, dtype=np.int64)
        training = np.flatnonzero(self.rows.folds != fold)
        if not self.config.stop_fraction:
            return training, np.empty(0, dtype=np.int64)
        stops = inner_stop(self.rows.take(training), fold, seed=self.seed, share=self.config.stop_fraction)
        return training[~stops], training[stops]

    def _stack(self, fold: int | None, context: FitContext, fitted: NDArray[np.int64]) -> StackInputs | None:
        config = self.config
        if not isinstance(config, StackConfig) or config.joins_features or self.towers is None:
            return None
        trained = {name: self.towers.tower(name, fold) for name in config.modalities}
        models = {name: tower.model for name, tower in trained.items()}
        groups = [self.rows.material_keys[i] for i in fitted]
        of_towers = {
            name: replace(
                context,
                config=config.tower_config(name),
                epochs=tower.epochs,
                stop=None,
                backbones={other: one for other, one in context.backbones.items() if other == name},
                on_epoch=None,
            )
            for name, tower in trained.items()
        }
        if not isinstance(config.join, NetworkJoin):
            columns = [self.towers.predictions(name, fold, of_towers[name], groups) for name in trained]
            return StackInputs(models, predictions=np.column_stack(columns))
        if config.join.tower_features == "out-of-fold":
            parts = [
                out_of_fold_features(of_towers[name], model, groups=groups)
                for name, model in models.items()
                if isinstance(model, FittedNetwork)
            ]
            return StackInputs(models, features=np.concatenate(parts, axis=1))
        return StackInputs(models)
