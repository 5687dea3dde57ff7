"""Stored towers of a stack: trained before it on the same split and seed, and read back fold by fold."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.models import ModelVersion, Prediction
from train.config.config import TrainConfig
from train.experiments.context import ExperimentContext
from train.experiments.folds import TrainedTower
from train.experiments.rows import Rows
from train.experiments.stacking import out_of_fold_predictions
from train.featurizers.catalog import Featurizer
from train.models.fitted import FitContext, RestoreContext
from train.models.fitting import restore_model

__all__ = ["StoredTowers"]


class StoredTowers:
    """Towers of one stack in the model store.

    Parameters
    ----------
    context
        Of the experiment.
    config
        Configuration of the stack.
    experiments
        Experiment of each tower, by modality.
    rows
        The cross-validated rows.
    backbones
        Featurizers by modality.
    """

    def __init__(
        self,
        context: ExperimentContext,
        config: TrainConfig,
        experiments: Mapping[str, int],
        *,
        rows: Rows,
        backbones: Mapping[str, Featurizer],
    ) -> None:
        self._context = context
        self._config = config
        self._experiments = experiments
        self._rows = rows
        self._backbones = backbones

    def tower(self, modality: str, fold: int | None) -> TrainedTower:
        """The tower of a fold, or of the refit; see :class:`train.experiments.folds.TowerSource`."""
        with Session(self._context.engine) as session:
            found = session.scalars(
                select(ModelVersion).where(
                    ModelVersion.experiment_id == self._experiments[modality],
                    ModelVersion.fold.is_(None) if fold is None else ModelVersion.fold == fold,
                )
            ).all()
        (ready,) = [version for version in found if version.status == "ready"]
        data = self._context.store.read(ready.artifact_uri or "", ready.artifact_sha256 or "")
        backbones = RestoreContext(self._backbones).only(modality)
        model = restore_model(self._config.tower_config(modality), data, backbones)
        return TrainedTower(model, {version.phase: version.best_epoch or 1 for version in found})

    def predictions(
        self, modality: str, fold: int | None, context: FitContext, groups: list[str]
    ) -> NDArray[np.float64]:
        """Predictions for rows that a tower had not seen; see :class:`train.experiments.folds.TowerSource`.

        For the refit these are the predictions of the folds for the rows that they scored. A fold, whose own rows
        nothing may be fitted to, has towers trained inside its training rows.
        """
        if fold is None:
            return self._validation(modality)
        key = [context.config.to_dict(), self._experiments[modality], context.seed, fold, groups]
        return self._context.cache.once(
            json_sha256(["out-of-fold", *key]), lambda: out_of_fold_predictions(context, groups=groups)
        )

    def _validation(self, modality: str) -> NDArray[np.float64]:
        with Session(self._context.engine) as session:
            found = dict(
                session.execute(
                    select(Prediction.revision_id, Prediction.value)
                    .join(ModelVersion, ModelVersion.id == Prediction.model_version_id)
                    .where(ModelVersion.experiment_id == self._experiments[modality], Prediction.subset == "validation")
                ).all()
            )
        return np.array([found[int(rid)] for rid in self._rows.revision_ids], dtype=np.float64)
