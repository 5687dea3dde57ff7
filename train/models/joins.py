"""Models that are no single network: a regressor on features, and a regressor that joins towers.

A regressor reads the features of one tower, or, where it can weigh groups of features, those of all towers of a stack
side by side. Any other join is stacked generalisation (D. H. Wolpert, Neural Networks 5, 241 (1992)): its regressor is
fitted to what towers said of rows that they had not seen, and then reads what towers of the whole training fold say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from registry.errors import ArtifactError, ConfigurationError
from train.config.config import TrainConfig
from train.features.featurizers import Featurizer
from train.models.checkpoints import BackboneRecord
from train.models.fitting import FittedModel, Shown, restore
from train.models.optimization import FitResult
from train.models.regressors.base import Regressor, RegressorKind
from train.models.regressors.catalog import REGRESSORS
from train.models.safetensors_io import pack, unpack

__all__ = ["FittedJoin", "FittedRegressor", "fit_join", "fit_regressor", "restore_join", "restore_regressor"]


@dataclass(frozen=True)
class FittedRegressor:
    """A regressor on the features of a tower, or on those of all towers of a stack."""

    config: TrainConfig
    regressor: Regressor
    phase: str = "fit"
    result: FitResult | None = None
    reads_raw: bool = False
    backbones: Mapping[str, Featurizer] = field(default_factory=dict)
    """What its features come from, by modality; empty in a restored one."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What was stored beside a restored one."""
    records: Mapping[str, BackboneRecord] = field(default_factory=dict)
    """The backbones of a restored one."""

    def predict(self, shown: Shown) -> NDArray[np.float64]:
        """Values in the unit of the target, (N,)."""
        if not len(shown):
            return np.empty(0)
        return self.regressor.predict(np.concatenate(list(_read(self.config, shown).values()), axis=1))

    def scalers(self) -> dict[str, Any]:
        """Nothing: a regressor keeps what it has fitted to itself."""
        return {}

    def to_bytes(self, *, extra: dict[str, Any]) -> bytes:
        """The regressor as safetensors; the backbones by their checksums alone."""
        kept = {name: vars(record) for name, record in self.records.items()}
        records = kept | {name: vars(_record(backbone)) for name, backbone in self.backbones.items()}
        about = {"config": self.config.to_dict(), "extra": extra, "backbones": records}
        return pack({"regressor": _stored(self.regressor.to_bytes())}, kind="regressor", about=about)


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
    """What was stored beside a restored one."""

    @property
    def reads_raw(self) -> bool:
        """Whether a tower holds a fine-tuned backbone."""
        return any(tower.reads_raw for tower in self.towers.values())

    @property
    def records(self) -> Mapping[str, BackboneRecord]:
        """The backbones of the towers, where they were restored."""
        return {name: record for tower in self.towers.values() for name, record in tower.records.items()}

    def predict(self, shown: Shown) -> NDArray[np.float64]:
        """Values in the unit of the target, (N,)."""
        return self.regressor.predict(tower_predictions(self.towers, shown)) if len(shown) else np.empty(0)

    def scalers(self) -> dict[str, Any]:
        """Those of the towers."""
        return {name: tower.scalers() for name, tower in self.towers.items()}

    def to_bytes(self, *, extra: dict[str, Any]) -> bytes:
        """The regressor and every tower as safetensors."""
        tensors = {f"towers.{name}": _stored(tower.to_bytes(extra=extra)) for name, tower in self.towers.items()}
        tensors["regressor"] = _stored(self.regressor.to_bytes())
        return pack(tensors, kind="join", about={"config": self.config.to_dict(), "extra": extra})


def tower_predictions(towers: Mapping[str, FittedModel], shown: Shown) -> NDArray[np.float64]:
    """What towers say of N crystals, (N, T), in the unit of the target."""
    return np.column_stack([tower.predict(shown) for tower in towers.values()])


def fit_regressor(
    config: TrainConfig, shown: Shown, values: NDArray[np.float64], *, seed: int, backbones: Mapping[str, Featurizer]
) -> FittedRegressor:
    """Fit a regressor to the features of a tower, or of the towers of a stack.

    Parameters
    ----------
    config
        Of a single tower, or of a stack that is joined at its towers' features.
    shown, values
        The N rows to fit; values in the unit of the target.
    seed
        Of whatever is random in it.
    backbones
        Where the features come from, by modality.
    """
    features = _read(config, shown)
    own = {name: backbone for name, backbone in backbones.items() if name in config.towers}
    joined = np.concatenate(list(features.values()), axis=1)
    regressor = _kind(config).fit(joined, values, seed, _groups(own, features))
    return FittedRegressor(config, regressor, backbones=own)


def fit_join(
    config: TrainConfig,
    towers: Mapping[str, FittedModel],
    unseen: NDArray[np.float64],
    values: NDArray[np.float64],
    *,
    seed: int,
) -> FittedJoin:
    """Join towers by a regressor.

    Parameters
    ----------
    config
        Of a stack.
    towers
        By modality: fitted to all N rows.
    unseen
        (N, T), what towers said of each row that had not been fitted to it; columns as ``towers``.
    values
        (N,), in the unit of the target.
    seed
        Of whatever is random in it.
    """
    return FittedJoin(config, dict(towers), REGRESSORS[config.join].fit(unseen, values, seed, list(towers)))


def restore_regressor(data: bytes) -> FittedRegressor:
    """The model that :meth:`FittedRegressor.to_bytes` wrote.

    Raises
    ------
    ArtifactError
        If the bytes are no such model.
    """
    tensors, about = unpack(data, kind="regressor")
    config = _config(about)
    records = {name: BackboneRecord(**record) for name, record in about["backbones"].items()}
    regressor = _kind(config).from_bytes(tensors["regressor"].numpy().tobytes())
    return FittedRegressor(config, regressor, extra=dict(about["extra"]), records=records)


def restore_join(data: bytes, **options: Any) -> FittedJoin:
    """The stack that :meth:`FittedJoin.to_bytes` wrote.

    Parameters
    ----------
    data
        safetensors.
    **options
        As :func:`train.models.fitting.restore` takes them, for the towers.

    Raises
    ------
    ArtifactError
        If the bytes are no such stack, or a tower's backbone is another one.
    """
    tensors, about = unpack(data, kind="join")
    config = _config(about)
    if sorted(tensors) != sorted(["regressor", *(f"towers.{name}" for name in config.towers)]):
        raise ArtifactError(f"a stack of {', '.join(sorted(tensors))}; train it again")
    towers = {
        name: restore(config.tower_config(name), tensors[f"towers.{name}"].numpy().tobytes(), **options)
        for name in config.towers
    }
    regressor = REGRESSORS[config.join].from_bytes(tensors["regressor"].numpy().tobytes())
    return FittedJoin(config, towers, regressor, extra=dict(about["extra"]))


def _groups(backbones: Mapping[str, Featurizer], features: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """Group of each column of features side by side; of a modality whose backbone is not known, the modality."""
    groups: list[str] = []
    for name, values in features.items():
        known = backbones[name].groups if name in backbones else ()
        fits = len(known) == values.shape[1]  # several views are pooled, and have a column for each feature of one
        groups += [f"{name}:{group}" for group in known] if fits else [name] * values.shape[1]
    return groups


def _kind(config: TrainConfig) -> RegressorKind:
    return REGRESSORS[config.join if config.kind == "stacked" else config.regressor(config.kind)]


def _read(config: TrainConfig, shown: Shown) -> dict[str, NDArray[np.float64]]:
    """What a regressor reads of each tower: the features; of several views, their mean."""
    return {
        name: np.asarray(config.views(name).pooled(shown.features[name]), dtype=np.float64) for name in config.towers
    }


def _config(about: Mapping[str, Any]) -> TrainConfig:
    try:
        return TrainConfig.from_dict(about["config"])
    except (KeyError, TypeError, ConfigurationError) as error:
        raise ArtifactError(f"a model's metadata cannot be used ({error}); train the model again") from None


def _record(backbone: Featurizer) -> BackboneRecord:
    return BackboneRecord(backbone.spec(), backbone.preprocessing(), backbone.weights_sha256, stored=False)


def _stored(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
