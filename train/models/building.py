"""Construction of the network of a configuration, with fresh weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from registry.errors import ModelError
from train.config.config import TrainConfig
from train.config.schema import ClipEncoder, ContrastiveConfig, NetworkHead, NetworkJoin, StackConfig, TowerConfig
from train.features.views import views_of
from train.modalities.features import FeatureConfig
from train.models.contrastive_networks import ContrastiveNetwork, Projection
from train.models.networks import Readout, StackedNetwork, Tower

__all__ = ["build_network"]


def build_network(
    config: TrainConfig, input_dims: Mapping[str, int], seed: int, *, towers: Mapping[str, Tower] | None = None
) -> Tower | StackedNetwork:
    """A network with fresh weights, in its readout phase and without backbones.

    The same arguments give the same weights; torch's global random state is left alone.

    Parameters
    ----------
    config
        Kind and widths.
    input_dims
        Number of features D of each modality.
    seed
        Seed of the initial weights.
    towers
        For a stack: its trained towers by modality, copied. Without them fresh ones are
        made, as when weights are about to be loaded.

    Raises
    ------
    ModelError
        If the model is not a network, a modality has no dimension, or a tower is missing.
    """
    if not config.is_network:
        raise ModelError(f"a {config.kind} model of this configuration is not a network; use train.models.fitted")
    for name in config.modalities:
        if name not in input_dims and towers is None:
            raise ModelError(f"input_dims lacks {name!r}; a {config.kind} network needs {', '.join(config.modalities)}")
    with torch.random.fork_rng(devices=[]):
        # default_generator, not torch.manual_seed: that would reseed every GPU as well.
        torch.default_generator.manual_seed(seed)
        if isinstance(config, ContrastiveConfig):
            return _contrastive(config, input_dims)
        if isinstance(config, TowerConfig):
            return _tower(config.modality, config.features, config.head, input_dims, outputs=_outputs(config))
        if isinstance(config, StackConfig) and isinstance(config.join, NetworkJoin):
            return _stack(config, config.join, input_dims, towers)
    raise ModelError(f"a configuration of type {config.type!r} does not describe a network of this project")


def _outputs(config: TrainConfig) -> int:
    return 1 + len(config.auxiliary)


def _tower(
    modality: str, features: FeatureConfig, head: object, input_dims: Mapping[str, int], *, outputs: int
) -> Tower:
    assert isinstance(head, NetworkHead)
    dim, views = input_dims[modality], views_of(features)
    readout = Readout(views.dim(dim), head.widths, dropout=head.dropout, outputs=outputs)
    return Tower(modality, readout, dim=dim, views=views)


def _stack(
    config: StackConfig, join: NetworkJoin, input_dims: Mapping[str, int], towers: Mapping[str, Tower] | None
) -> StackedNetwork:
    outputs = _outputs(config)
    if towers is None:
        towers = {
            one.modality: _tower(one.modality, one.features, one.head, input_dims, outputs=outputs)
            for one in config.towers
        }
    if sorted(towers) != sorted(config.modalities):
        raise ModelError(f"towers {sorted(towers)} for a stack of {', '.join(config.modalities)}")
    ordered = {name: towers[name] for name in config.modalities}
    return StackedNetwork(ordered, widths=join.widths, dropout=join.dropout, outputs=outputs)


def _contrastive(config: ContrastiveConfig, input_dims: Mapping[str, int]) -> ContrastiveNetwork:
    encoder = config.encoder
    dims = {name: input_dims[name] for name in config.modalities}
    if isinstance(encoder, ClipEncoder):
        if len(set(dims.values())) != 1:
            raise ModelError(f"the halves of {encoder.name!r} project to {dims}; they do not belong to one CLIP")
        projections = {name: Projection(dim, None) for name, dim in dims.items()}
    else:
        width, dropout = encoder.projection_dim, encoder.projection_dropout
        projections = {name: Projection(dim, width, dropout=dropout) for name, dim in dims.items()}
    return ContrastiveNetwork({name: Tower(name, projections[name], dim=dim) for name, dim in dims.items()})
