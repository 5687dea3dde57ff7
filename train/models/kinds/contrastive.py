"""Contrastive models: a CLIP, or a dual encoder in its place, and a linear layer on both projections."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from train.config.config import TrainConfig
from train.features.batch import Batch
from train.models import optimization
from train.models.building import build_network
from train.models.contrastive_networks import ContrastiveNetwork
from train.models.fitted import FitContext, FittedModel, RestoreContext
from train.models.network_fitting import fit_network, network_inputs, restore_network, trainable
from train.models.networks import Inputs, Phase
from train.models.scalers import StandardScaler

__all__ = ["fit", "restore"]


def fit(context: FitContext) -> Iterator[FittedModel]:
    """Fit from fresh projections; yields the model after each phase.

    Rows of early stopping are scored by the contrastive loss in the phase ``align``.

    Raises
    ------
    ModelError
        If the halves of a CLIP do not belong together, or the loss is not finite.
    """
    features = context.batch.features
    dims = {name: values.shape[1] for name, values in features.items()}
    network = build_network(context.config, dims, context.derived_seed("weights"))
    assert isinstance(network, ContrastiveNetwork)
    if "align" in context.config.phases:
        for name in network.modalities:
            network.tower(name).scale.set(StandardScaler.fit(features[name]))

    def begin(phase: str, raw: bool) -> None:
        if raw:
            for name in network.modalities:
                network.tower(name).attach(trainable(context.backbones, name))
        network.set_phase(_PHASES[phase])

    def inputs_of(batch: Batch, phase: str, raw: bool) -> Inputs:
        inputs = network_inputs(batch, raw=raw)
        if phase == "readout":
            # The projections are frozen: they are computed once, not in every epoch.
            return optimization.to_inputs(joined=optimization.encode(network, inputs, joined=True))
        return inputs

    def fitted_inputs_of(batch: Batch, phase: str, raw: bool) -> Inputs:
        inputs = inputs_of(batch, phase, raw)
        if phase == "readout":
            network.scale.set(StandardScaler.fit(np.asarray(inputs["joined"])))
        return inputs

    yield from fit_network(network, context, begin=begin, inputs_of=inputs_of, fitted_inputs_of=fitted_inputs_of)


def restore(config: TrainConfig, data: bytes, context: RestoreContext) -> FittedModel:
    """The model that :meth:`FittedModel.to_bytes` wrote.

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
        If the bytes are not such a model, or a backbone is another one.
    """
    return restore_network(data, context)


_PHASES: dict[str, Phase] = {"align": "align", "readout": "readout", "finetune": "finetune"}
