"""Stacks: towers joined by dense layers, by a regressor on their features, or by one on their predictions."""

from __future__ import annotations

from collections.abc import Iterator

from registry.errors import ModelError
from train.config.config import TrainConfig
from train.features.batch import Batch
from train.models import optimization
from train.models.building import build_network
from train.models.fitted import FitContext, FittedModel, RestoreContext, StackInputs
from train.models.fitted_regressors import fit_join, fit_regressor, restore_join, restore_regressor
from train.models.network_fitting import FittedNetwork, fit_network, network_inputs, restore_network
from train.models.networks import Inputs, StackedNetwork, Tower

__all__ = ["fit", "restore"]


def fit(context: FitContext) -> Iterator[FittedModel]:
    """Fit a stack; yields it after each phase.

    Raises
    ------
    ModelError
        If its towers are missing or are not networks where they must be, or the loss is not finite.
    """
    config = context.config
    if config.joins_features:
        yield fit_regressor(context)
        return
    if context.stack is None:
        raise ModelError("a stack needs the trained towers of its fold")
    if config.is_network:
        yield from _fit_network(context, context.stack)
    else:
        yield fit_join(context)


def _fit_network(context: FitContext, stack: StackInputs) -> Iterator[FittedModel]:
    dims = {name: features.shape[1] for name, features in context.batch.features.items()}
    towers = {name: _network_of(tower) for name, tower in stack.towers.items()}
    network = build_network(context.config, dims, context.derived_seed("weights"), towers=towers)
    assert isinstance(network, StackedNetwork)

    def begin(phase: str, raw: bool) -> None:
        network.set_phase("readout" if phase == "readout" else "finetune")

    def inputs_of(batch: Batch, phase: str, raw: bool) -> Inputs:
        inputs = network_inputs(batch, raw=raw)
        if phase == "readout":
            # The towers are frozen: their features are computed once, not in every epoch.
            return optimization.to_inputs(joined=optimization.encode(network, inputs, joined=True))
        return inputs

    def fitted_inputs_of(batch: Batch, phase: str, raw: bool) -> Inputs:
        if stack.features is not None and phase == "readout":
            return optimization.to_inputs(joined=stack.features)
        return inputs_of(batch, phase, raw)

    yield from fit_network(network, context, begin=begin, inputs_of=inputs_of, fitted_inputs_of=fitted_inputs_of)


def restore(config: TrainConfig, data: bytes, context: RestoreContext) -> FittedModel:
    """The stack that :meth:`FittedModel.to_bytes` wrote.

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
        If the bytes are not a stack, or a featurizer is another one.
    """
    if config.is_network:
        return restore_network(data, context)
    return restore_regressor(data) if config.joins_features else restore_join(data, context)


def _network_of(tower: FittedModel) -> Tower:
    if isinstance(tower, FittedNetwork) and isinstance(tower.network, Tower):
        return tower.network
    raise ModelError("a stack whose towers are not networks is joined by a regressor; set join to the name of one")
