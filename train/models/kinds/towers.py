"""Towers: dense layers or a regressor on the features of one modality."""

from __future__ import annotations

from collections.abc import Iterator

from train.config.config import TrainConfig
from train.features.batch import Batch
from train.models.building import build_network
from train.models.fitted import FitContext, FittedModel, RestoreContext
from train.models.fitted_regressors import fit_regressor, restore_regressor
from train.models.network_fitting import fit_network, network_inputs, restore_network, trainable
from train.models.networks import Inputs, Tower
from train.models.scalers import StandardScaler

__all__ = ["fit", "restore"]


def fit(context: FitContext) -> Iterator[FittedModel]:
    """Fit a tower from fresh weights; yields it after each phase.

    Raises
    ------
    ModelError
        If the loss is not finite, or the rows cannot be fitted.
    """
    config = context.config
    if not config.is_network:
        yield fit_regressor(context)
        return
    dims = {name: features.shape[1] for name, features in context.batch.features.items()}
    network = build_network(config, dims, context.derived_seed("weights"))
    assert isinstance(network, Tower)
    features = context.batch.features[network.modality]
    network.scale.set(StandardScaler.fit(network.views.rows(features)))

    def begin(phase: str, raw: bool) -> None:
        network.set_phase("readout" if phase == "readout" else "finetune")
        if raw:
            network.attach(trainable(context.backbones, network.modality))

    def inputs_of(batch: Batch, phase: str, raw: bool) -> Inputs:
        return network_inputs(batch, raw=raw)

    yield from fit_network(network, context, begin=begin, inputs_of=inputs_of)


def restore(config: TrainConfig, data: bytes, context: RestoreContext) -> FittedModel:
    """The tower that :meth:`FittedModel.to_bytes` wrote.

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
        If the bytes are not a tower, or a featurizer is another one.
    """
    return restore_network(data, context) if config.is_network else restore_regressor(data)
