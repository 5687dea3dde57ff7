"""Baselines: the mean of the training rows, and trees on Magpie features of the composition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.config.config import TrainConfig
from train.config.schema import BaselineConfig
from train.features.batch import Batch
from train.models.fitted import FitContext, FittedModel, RestoreContext
from train.models.optimization import FitResult
from train.models.records import BackboneRecord
from train.models.regressors.baselines import MagpieBaseline, MeanBaseline

__all__ = ["FittedBaseline", "fit", "restore"]


@dataclass(frozen=True)
class FittedBaseline:
    """A fitted baseline."""

    model: MeanBaseline | MagpieBaseline
    phase: str = "fit"
    result: FitResult | None = None
    reads_raw: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    records: Mapping[str, BackboneRecord] = field(default_factory=dict)

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Values in the unit of the target, (N,)."""
        if isinstance(self.model, MeanBaseline):
            return self.model.predict(len(batch))
        return self.model.predict(batch.features["composition"]) if len(batch) else np.empty(0)

    def scalers(self) -> dict[str, Any]:
        """Nothing: a baseline works in the unit of the target."""
        return {}

    def to_bytes(self, *, extra: dict[str, Any]) -> bytes:
        """The baseline as safetensors; ``extra`` is stored with the experiment."""
        return self.model.to_bytes()


def fit(context: FitContext) -> Iterator[FittedModel]:
    """Fit a baseline; yields it once."""
    config = context.config
    assert isinstance(config, BaselineConfig)
    if config.name == "mean":
        yield FittedBaseline(MeanBaseline.fit(context.values))
        return
    features = context.batch.features["composition"]
    seed = context.derived_seed("trees")
    yield FittedBaseline(MagpieBaseline.fit(features, context.values, seed=seed, n_estimators=config.n_estimators))


def restore(config: TrainConfig, data: bytes, context: RestoreContext) -> FittedModel:
    """The baseline that :meth:`FittedBaseline.to_bytes` wrote.

    Parameters
    ----------
    config
        Configuration of the model.
    data
        safetensors.
    context
        Where its featurizers come from.

    Raises
    ------
    ArtifactError
        If the bytes are not a baseline.
    """
    assert isinstance(config, BaselineConfig)
    return FittedBaseline(MeanBaseline.from_bytes(data) if config.name == "mean" else MagpieBaseline.from_bytes(data))
