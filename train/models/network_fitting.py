"""Fitting of neural networks phase by phase, and the fitted network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from train.backbones.base import Backbone
from train.config.config import TrainConfig
from train.features.batch import Batch
from train.featurizers.catalog import Featurizer
from train.models import optimization
from train.models.checkpoints import from_bytes, to_bytes
from train.models.fitted import FitContext, OnEpoch, RestoreContext
from train.models.networks import Inputs, StackedNetwork, Tower
from train.models.optimization import EpochRecord, FitResult
from train.models.records import BackboneRecord
from train.models.scalers import StandardScaler

__all__ = ["FittedNetwork", "InputsOf", "fit_network", "network_inputs", "restore_network", "trainable"]

InputsOf: TypeAlias = Callable[[Batch, str, bool], Inputs]
"""Inputs of a network for a batch in a phase; the last argument is whether raw inputs are read."""


@dataclass(frozen=True)
class FittedNetwork:
    """A network after one of its phases."""

    config: TrainConfig
    network: Tower | StackedNetwork
    target_scaler: StandardScaler
    phase: str
    reads_raw: bool
    """Whether it has fine-tuned backbones and reads raw inputs."""
    result: FitResult | None = None
    backbones: Mapping[str, Featurizer] = field(default_factory=dict)
    """The pre-trained featurizers that its features come from, by modality; in a restored network those that it was
    given. A stack stores its towers anew, with these."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Description of the training data that is stored with a restored network."""
    records: Mapping[str, BackboneRecord] = field(default_factory=dict)
    """The featurizers of a restored network, by modality."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Values in the unit of the target, (N,)."""
        if not len(batch):
            return np.empty(0)
        inputs = network_inputs(batch, raw=self.reads_raw)
        return self.target_scaler.inverse(optimization.predict(self.network, inputs))

    def encode(self, batch: Batch) -> NDArray[np.float32]:
        """Penultimate features, (N, width)."""
        return optimization.encode(self.network, network_inputs(batch, raw=self.reads_raw))

    def scalers(self) -> dict[str, Any]:
        """Mean and scale of the target; those of the features are stored with the weights."""
        return {"target": self.target_scaler.to_dict()}

    def to_bytes(self, *, extra: dict[str, Any]) -> bytes:
        """Weights, scalers and configuration as safetensors; frozen backbones by their checksum alone."""
        return to_bytes(
            self.network,
            self.config,
            target_scaler=self.target_scaler,
            phase=self.phase,
            extra=extra,
            backbones=self.backbones,
        )


def network_inputs(batch: Batch, *, raw: bool) -> Inputs:
    """Inputs of a network: raw inputs where they are present and requested, else frozen features."""
    return optimization.to_inputs(**({**batch.features, **batch.raw} if raw else batch.features))


def fit_network(
    network: Tower | StackedNetwork,
    context: FitContext,
    *,
    begin: Callable[[str, bool], None],
    inputs_of: InputsOf,
    fitted_inputs_of: InputsOf | None = None,
) -> Iterator[FittedNetwork]:
    """Train a network through its phases; yields it after each.

    Parameters
    ----------
    network
        With fresh weights.
    context
        The rows, the phases and the seed.
    begin
        Called before each phase with its name and whether raw inputs are read: attaches backbones, and chooses what
        trains.
    inputs_of
        Inputs of the network for a batch.
    fitted_inputs_of
        The same for the rows to fit, where they differ.

    Raises
    ------
    ModelError
        If the loss is not finite.
    """
    config = context.config
    scaler = StandardScaler.fit(context.values)
    targets = _standardised(context.targets) if config.auxiliary else scaler.transform(context.values)
    for phase in config.phases:
        raw, settings = config.reads_raw(phase), config.phase(phase)
        begin(phase, raw)
        result = optimization.fit(
            network,
            (fitted_inputs_of or inputs_of)(context.batch, phase, raw),
            targets,
            phase=settings,
            seed=context.derived_seed("fit", phase),
            stop=None
            if context.stop is None
            else (inputs_of(context.stop[0], phase, raw), scaler.transform(context.stop[1])),
            epochs=None if context.stop is not None else (context.epochs or {}).get(phase, settings.max_epochs),
            on_epoch=None if context.on_epoch is None else _of_phase(context.on_epoch, phase),
        )
        yield FittedNetwork(config, network, scaler, phase, raw, result, dict(context.backbones))


def restore_network(data: bytes, context: RestoreContext) -> FittedNetwork:
    """The network that :meth:`FittedNetwork.to_bytes` wrote.

    Raises
    ------
    ArtifactError
        If the bytes are not a network, or a featurizer is another one.
    ConfigurationError
        If the architecture of a fine-tuned backbone cannot be found here.
    """
    checkpoint = from_bytes(data, backbones=context.backbones, models=context.models)
    return FittedNetwork(
        checkpoint.config,
        checkpoint.network,
        checkpoint.target_scaler,
        checkpoint.phase,
        checkpoint.config.reads_raw(checkpoint.phase),
        backbones={name: one for name, one in context.backbones.items() if name in checkpoint.backbones},
        extra=checkpoint.extra,
        records=checkpoint.backbones,
    )


def trainable(backbones: Mapping[str, Featurizer], modality: str) -> Backbone:
    """The backbone of a modality, which is about to be fine-tuned.

    Raises
    ------
    TypeError
        If it is a fixed rule: a configuration does not fine-tune such a modality.
    """
    backbone = backbones[modality]
    if not isinstance(backbone, Backbone):
        raise TypeError(f"the featurizer {backbone.name!r} of {modality} has no weights to fine-tune")
    return backbone


def _standardised(targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every column standardised on the rows where it is known, (N, 1 + A) -> (N, 1 + A)."""
    columns = []
    for column in targets.T:
        known = np.isfinite(column)
        columns.append(StandardScaler.fit(column[known]).transform(column) if known.any() else column)
    return np.column_stack(columns)


def _of_phase(on_epoch: OnEpoch, phase: str) -> Callable[[EpochRecord], None]:
    def report(record: EpochRecord) -> None:
        on_epoch(phase, record)

    return report
