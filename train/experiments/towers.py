"""The towers that a stack is built on: trained before it on the same split and seed, and read back fold by fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.files.artifacts import ArtifactStore
from registry.models import ModelVersion, Prediction
from train.config.config import TrainConfig
from train.experiments.stacking import out_of_fold, unseen_predictions
from train.features.cache import FeatureCache
from train.features.featurizers import Featurizer
from train.models.fitting import FittedModel, FittedNetwork, Shown, derived_seed, restore

__all__ = ["TrainedTowers"]


class TrainedTowers:
    """Towers of one stack.

    Parameters
    ----------
    engine
        Only read.
    store
        Where weights are kept.
    config
        Of the stack.
    experiments
        Experiment of each tower, by modality.
    backbones
        Pre-trained backbones by modality.
    cache
        Keeps what several stacks of one process ask of the same towers.
    seed
        Of the experiment.
    """

    def __init__(
        self,
        engine: Engine,
        store: ArtifactStore,
        config: TrainConfig,
        experiments: Mapping[str, int],
        *,
        backbones: Mapping[str, Featurizer],
        cache: FeatureCache,
        seed: int,
    ) -> None:
        self._engine = engine
        self._store = store
        self._config = config
        self._experiments = experiments
        self._backbones = backbones
        self._cache = cache
        self._seed = seed

    def fitted(self, fold: int | None) -> dict[str, tuple[FittedModel, dict[str, int]]]:
        """By modality: the tower of a fold (None: the refit), and the epochs that its phases were trained for."""
        return {name: self._tower(name, fold) for name in self._config.towers}

    def features(
        self,
        fitted: Mapping[str, tuple[FittedModel, Mapping[str, int]]],
        shown: Shown,
        values: NDArray[np.float64],
        *,
        groups: Sequence[str],
        fold: int | None,
    ) -> NDArray[np.float32]:
        """Joined penultimate features of training rows, each of towers that were not trained on the row, (N, width).

        Parameters
        ----------
        fitted
            As :meth:`fitted` gives them.
        shown, values
            The N rows that the towers of this fold were fitted to.
        groups
            What must stay together, for each row: its material.
        fold
            The fold that is scored; None for the refit.
        """
        networks = {
            name: (self._config.tower_config(name), tower, counts)
            for name, (tower, counts) in fitted.items()
            if isinstance(tower, FittedNetwork)
        }
        seed = derived_seed(self._seed, "fold", fold)
        return out_of_fold(networks, shown, values, groups=groups, seed=seed, backbones=self._backbones)

    def unseen(
        self,
        fitted: Mapping[str, tuple[FittedModel, Mapping[str, int]]],
        shown: Shown,
        values: NDArray[np.float64],
        *,
        revision_ids: NDArray[np.int64],
        groups: Sequence[str],
        fold: int | None,
    ) -> NDArray[np.float64]:
        """What towers say of training rows that they have not seen, (N, T), in the unit of the target.

        For the refit that is what the towers of the folds said of the rows that they were scored on. A fold, whose own
        rows nothing may be fitted to, has towers trained inside its training rows.

        Parameters
        ----------
        fitted, shown, values, groups, fold
            As for :meth:`features`.
        revision_ids
            (N,), of the rows.
        """
        columns = []
        for name, (_, epochs) in fitted.items():
            if fold is None:
                columns.append(self._said_in_validation(name, revision_ids))
                continue
            config = self._config.tower_config(name)
            key = [config.to_dict(), self._experiments[name], self._seed, fold, revision_ids.tolist()]
            columns.append(
                self._cache.remember(
                    json_sha256(["unseen", *key]),
                    lambda name=name, config=config, epochs=epochs: unseen_predictions(  # type: ignore[misc]
                        config,
                        shown,
                        values,
                        epochs=epochs,
                        groups=groups,
                        seed=derived_seed(self._seed, "fold", fold),
                        backbones={name: self._backbones[name]},
                    ),
                )
            )
        return np.column_stack(columns)

    def _said_in_validation(self, name: str, revision_ids: NDArray[np.int64]) -> NDArray[np.float64]:
        with Session(self._engine) as session:
            said = dict(
                session.execute(
                    select(Prediction.revision_id, Prediction.value)
                    .join(ModelVersion, ModelVersion.id == Prediction.model_version_id)
                    .where(ModelVersion.experiment_id == self._experiments[name], Prediction.subset == "validation")
                ).all()
            )
        return np.array([said[int(rid)] for rid in revision_ids], dtype=np.float64)

    def _tower(self, modality: str, fold: int | None) -> tuple[FittedModel, dict[str, int]]:
        with Session(self._engine) as session:
            found = session.scalars(
                select(ModelVersion).where(
                    ModelVersion.experiment_id == self._experiments[modality],
                    ModelVersion.fold.is_(None) if fold is None else ModelVersion.fold == fold,
                )
            ).all()
        (ready,) = [version for version in found if version.status == "ready"]
        data = self._store.read(ready.artifact_uri or "", ready.artifact_sha256 or "")
        backbones = {name: b for name, b in self._backbones.items() if name == modality}
        tower = restore(self._config.tower_config(modality), data, backbones=backbones)
        return tower, {version.phase: version.best_epoch or 1 for version in found}
