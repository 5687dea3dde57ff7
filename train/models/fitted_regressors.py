"""Models without epochs: a regressor on features, and a regressor that joins towers.

A regressor reads the features of one tower, or, where it can weigh groups of features, those of all towers of a stack
side by side. Any other join is stacked generalisation (D. H. Wolpert, Neural Networks 5, 241 (1992)): its regressor is
fitted to predictions of towers for rows that they had not seen, and then reads predictions of towers that are fitted to
the whole training fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from registry.errors import ArtifactError, EcdregError, ModelError
from train.config.config import TrainConfig
from train.config.kinds import parse_config
from train.config.schema import StackConfig, TowerConfig
from train.features.batch import Batch
from train.features.views import views_of
from train.featurizers.catalog import Featurizer
from train.models.fitted import FitContext, FittedModel, RestoreContext
from train.models.fitting import restore_model
from train.models.optimization import FitResult
from train.models.records import BackboneRecord, record_of
from train.models.regressors.base import Regressor, RegressorKind
from train.models.regressors.catalog import REGRESSORS
from train.models.safetensors_io import pack, unpack

__all__ = [
    "FittedJoin",
    "FittedRegressor",
    "fit_join",
    "fit_regressor",
    "restore_join",
    "restore_regressor",
    "tower_predictions",
]


@dataclass(frozen=True)
class FittedRegressor:
    """A regressor on the features of a tower, or on those of all towers of a stack."""

    config: TrainConfig
    regressor: Regressor
    phase: str = "fit"
    result: FitResult | None = None
    reads_raw: bool = False
    backbones: Mapping[str, Featurizer] = field(default_factory=dict)
    """Featurizers that its features come from, by modality; empty in a restored one."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Description of the training data that is stored with a restored model."""
    records: Mapping[str, BackboneRecord] = field(default_factory=dict)
    """The featurizers of a restored one."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Values in the unit of the target, (N,)."""
        if not len(batch):
            return np.empty(0)
        return self.regressor.predict(np.concatenate(list(_features(self.config, batch).values()), axis=1))

    def scalers(self) -> dict[str, Any]:
        """Nothing: a regressor keeps its scalers to itself."""
        return {}

    def to_bytes(self, *, extra: dict[str, Any]) -> bytes:
        """The regressor as safetensors; the featurizers by their checksums alone."""
        kept = {name: vars(record) for name, record in self.records.items()}
        records = kept | {name: vars(record_of(one)) for name, one in self.backbones.items()}
        about = {"config": self.config.to_dict(), "extra": extra, "backbones": records}
        return pack({"regressor": _tensor(self.regressor.to_bytes())}, kind="regressor", about=about)


@dataclass(frozen=True)
class FittedJoin:
    """Towers joined by a regressor on their predictions."""

    config: TrainConfig
    towers: Mapping[str, FittedModel]
    """By modality, in the order of the regressor's columns."""
    regressor: Regressor
    phase: str = "fit"
    result: FitResult | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Description of the training data that is stored with a restored model."""

    @property
    def reads_raw(self) -> bool:
        """Whether a tower has a fine-tuned backbone."""
        return any(tower.reads_raw for tower in self.towers.values())

    @property
    def records(self) -> Mapping[str, BackboneRecord]:
        """The featurizers of the towers, where they were restored."""
        return {name: record for tower in self.towers.values() for name, record in tower.records.items()}

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Values in the unit of the target, (N,)."""
        return self.regressor.predict(tower_predictions(self.towers, batch)) if len(batch) else np.empty(0)

    def scalers(self) -> dict[str, Any]:
        """Those of the towers."""
        return {name: tower.scalers() for name, tower in self.towers.items()}

    def to_bytes(self, *, extra: dict[str, Any]) -> bytes:
        """The regressor and every tower as safetensors."""
        tensors = {f"towers.{name}": _tensor(tower.to_bytes(extra=extra)) for name, tower in self.towers.items()}
        tensors["regressor"] = _tensor(self.regressor.to_bytes())
        return pack(tensors, kind="join", about={"config": self.config.to_dict(), "extra": extra})


def fit_regressor(context: FitContext) -> FittedRegressor:
    """Fit a regressor to the features of a tower, or of the towers of a stack."""
    config = context.config
    features = _features(config, context.batch)
    own = {name: one for name, one in context.backbones.items() if name in config.modalities}
    joined = np.concatenate(list(features.values()), axis=1)
    seed = context.derived_seed("regressor")
    regressor = _kind(config).fit(joined, context.values, seed, _groups(own, features))
    return FittedRegressor(config, regressor, backbones=own)


def fit_join(context: FitContext) -> FittedJoin:
    """Join towers by a regressor on their out-of-fold predictions.

    Raises
    ------
    ModelError
        If the predictions of the towers for rows that they had not seen are missing.
    """
    stack = context.stack
    if stack is None or stack.predictions is None:
        raise ModelError("a stack joined by a regressor needs out-of-fold predictions of its towers")
    seed = context.derived_seed("join")
    regressor = _kind(context.config).fit(stack.predictions, context.values, seed, list(stack.towers))
    return FittedJoin(context.config, dict(stack.towers), regressor)


def restore_regressor(data: bytes) -> FittedRegressor:
    """The model that :meth:`FittedRegressor.to_bytes` wrote.

    Raises
    ------
    ArtifactError
        If the bytes are not such a model.
    """
    tensors, about = unpack(data, kind="regressor")
    config = _config(about)
    records = {name: BackboneRecord(**record) for name, record in about["backbones"].items()}
    regressor = _kind(config).from_bytes(tensors["regressor"].numpy().tobytes())
    return FittedRegressor(config, regressor, extra=dict(about["extra"]), records=records)


def restore_join(data: bytes, context: RestoreContext) -> FittedJoin:
    """The stack that :meth:`FittedJoin.to_bytes` wrote.

    Raises
    ------
    ArtifactError
        If the bytes are not such a stack, or a featurizer of a tower is another one.
    """
    tensors, about = unpack(data, kind="join")
    config = _config(about)
    if sorted(tensors) != sorted(["regressor", *(f"towers.{name}" for name in config.modalities)]):
        raise ArtifactError(f"the stack consists of {', '.join(sorted(tensors))}; train it again")
    towers = {
        name: restore_model(config.tower_config(name), tensors[f"towers.{name}"].numpy().tobytes(), context)
        for name in config.modalities
    }
    regressor = _kind(config).from_bytes(tensors["regressor"].numpy().tobytes())
    return FittedJoin(config, towers, regressor, extra=dict(about["extra"]))


# ------------------------------------------------------------------------------ private


def tower_predictions(towers: Mapping[str, FittedModel], batch: Batch) -> NDArray[np.float64]:
    """Predictions of towers for N crystals, (N, T), in the unit of the target."""
    return np.column_stack([tower.predict(batch) for tower in towers.values()])


def _groups(backbones: Mapping[str, Featurizer], features: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """Group of each column of features side by side; of a modality whose featurizer is not known, the modality."""
    groups: list[str] = []
    for name, values in features.items():
        known = backbones[name].groups if name in backbones else ()
        fits = len(known) == values.shape[1]  # several views are pooled, and have a column for each feature of one
        groups += [f"{name}:{group}" for group in known] if fits else [name] * values.shape[1]
    return groups


def _kind(config: TrainConfig) -> RegressorKind:
    if isinstance(config, StackConfig):
        return REGRESSORS[config.join.name]
    assert isinstance(config, TowerConfig)
    return REGRESSORS[config.head.name]


def _features(config: TrainConfig, batch: Batch) -> dict[str, NDArray[np.float64]]:
    """Features of each modality that a regressor reads; of several views, their mean."""
    return {
        name: np.asarray(views_of(features).pooled(batch.features[name]), dtype=np.float64)
        for name, features in config.inputs.items()
    }


def _config(about: Mapping[str, Any]) -> TrainConfig:
    try:
        return parse_config(about["config"])
    except (KeyError, TypeError, EcdregError) as error:
        raise ArtifactError(f"the metadata of a model cannot be used ({error}); train the model again") from None


def _tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
