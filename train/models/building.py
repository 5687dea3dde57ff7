"""Construction of networks from configurations."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from registry.errors import ModelError
from train.config.config import SHARED_SPACE, TrainConfig
from train.models.contrastive_networks import ContrastiveNetwork, Projection
from train.models.networks import Readout, StackedNetwork, Tower

__all__ = ["build_network"]


def build_network(
    config: TrainConfig, input_dims: Mapping[str, int], seed: int, *, towers: Mapping[str, Tower] | None = None
) -> Tower | StackedNetwork:
    """Build a network with new weights, in the readout phase and without backbones.

    The same arguments give the same weights; torch's global random state is not changed.

    Parameters
    ----------
    config
        Kind and widths.
    input_dims
        Number of features D of each modality.
    seed
        Seed of the initial weights.
    towers
        For a stack, its trained towers by modality, which are copied. Without them new towers are built, whose weights
        can then be loaded.

    Raises
    ------
    ModelError
        If the configuration is not a network, a modality has no dimension, or a tower is missing; or if the features of
        the two halves of a CLIP differ in number.
    """
    if not config.is_network:
        raise ModelError(f"a {config.kind} model with this configuration is not a network")
    for name in config.towers:
        if name not in input_dims and towers is None:
            raise ModelError(f"input_dims lacks {name!r}; a {config.kind} network needs {', '.join(config.towers)}")
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would reseed every GPU as well.
        torch.default_generator.manual_seed(seed)
        if config.kind in SHARED_SPACE:
            return _contrastive(config, input_dims)
        if config.kind != "stacked":
            return _tower(config, config.kind, input_dims)
        if towers is None:
            towers = {name: _tower(config, name, input_dims) for name in config.towers}
        if tuple(sorted(towers)) != tuple(sorted(config.towers)):
            raise ModelError(f"towers {sorted(towers)} for a stack of {', '.join(config.towers)}")
        ordered = {name: towers[name] for name in config.towers}
        return StackedNetwork(
            ordered,
            widths=config.stacked_widths,
            dropout=config.stacked_dropout,
            outputs=1 + len(config.auxiliary_targets),
        )


def _tower(config: TrainConfig, modality: str, input_dims: Mapping[str, int]) -> Tower:
    dim = input_dims[modality]
    widths, dropout = getattr(config, f"{modality}_widths"), getattr(config, f"{modality}_dropout")
    views = config.views(modality)
    readout = Readout(views.dim(dim), widths, dropout=dropout, outputs=1 + len(config.auxiliary_targets))
    return Tower(modality, readout, dim=dim, views=views)


def _contrastive(config: TrainConfig, input_dims: Mapping[str, int]) -> ContrastiveNetwork:
    width = None if config.kind == "clip" else config.projection_dim
    dims = {name: input_dims[name] for name in config.towers}
    if width is None and len(set(dims.values())) != 1:
        raise ModelError(f"the halves of {config.clip!r} project to {dims}; they do not belong to one CLIP")
    projections = {name: Projection(dim, width, dropout=config.projection_dropout) for name, dim in dims.items()}
    return ContrastiveNetwork({name: Tower(name, projections[name], dim=dim) for name, dim in dims.items()})
