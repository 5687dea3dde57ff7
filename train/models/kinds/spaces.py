"""Search spaces of towers, stacks, contrastive models and baselines.

For networks these are the parameters of training. Regressors find their own parameters, so that the space then contains
the choice of the regressor, of its features, and of the towers that a stack joins.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from registry.errors import ConfigurationError
from train.config.config import TrainConfig
from train.config.parameters import Parameter
from train.config.schema import BaselineConfig, ContrastiveConfig, DualEncoder, NetworkJoin, StackConfig, TowerConfig

__all__ = ["baseline_space", "contrastive_space", "stack_space", "tower_space"]

_REGRESSORS = ("gaussian-process", "gradient-boosting", "kernel", "ridge", "trees")

_WIDTHS: Mapping[str, tuple[str, ...]] = {
    "image": ("1024-512-256", "512-256", "256", "1024-256"),
    "text": ("512-512-256", "512-256", "256", "128"),
}
_OTHER_WIDTHS = ("512-512-256", "256-256", "256", "128-64")

_BACKBONES: Mapping[str, tuple[str, ...]] = {
    "image": ("pixel_statistics", "efficientnet_lite0"),
    "composition": ("elements", "magpie"),
}


def _phase(path: str, low: float, high: float) -> tuple[Parameter, ...]:
    return (
        Parameter(f"{path}.learning_rate", low, high, log=True),
        Parameter(f"{path}.weight_decay", choices=(0.0, 1e-4, 1e-3, 1e-2, 1e-1)),
        Parameter(f"{path}.batch_size", choices=(16, 32, 64)),
    )


_CLIP = _phase("training.readout", 3e-5, 3e-3)
_DUAL = (
    Parameter("encoder.projection_dim", choices=(128, 256, 512)),
    Parameter("encoder.align.learning_rate", 1e-4, 1e-2, log=True),
    Parameter("encoder.align.weight_decay", choices=(0.0, 1e-3, 1e-2, 1e-1)),
    *_phase("training.readout", 3e-5, 3e-3),
)


def tower_space(config: TrainConfig) -> tuple[Parameter, ...]:
    """The space of a tower: its dense layers and how they train, or its regressor and what that reads."""
    assert isinstance(config, TowerConfig)
    if not config.is_network:
        return (*_backbone("", config.modality), Parameter("head.name", choices=_REGRESSORS))
    return (
        Parameter("head.widths", choices=_WIDTHS.get(config.modality, _OTHER_WIDTHS)),
        Parameter("head.dropout", 0.0, 0.6),
        *_phase("training.readout", 1e-4, 5e-3),
    )


def stack_space(config: TrainConfig) -> tuple[Parameter, ...]:
    """The space of a stack.

    Raises
    ------
    ConfigurationError
        If its towers are too many to search with.
    """
    assert isinstance(config, StackConfig)
    if not isinstance(config.join, NetworkJoin):
        return _joined(config)
    if config.join.tower_features != "in-sample":
        raise ConfigurationError(
            f"join.tower_features is {config.join.tower_features!r}, whose towers are too many to search with; search"
            " in-sample, and train with the result"
        )
    # Rates of a stack act on its towers too, which are trained anew in every trial.
    return (
        Parameter("join.widths", choices=("256", "512-256", "128", "64")),
        Parameter("join.dropout", 0.0, 0.6),
        *_phase("training.readout", 1e-4, 5e-3),
        Parameter("training.finetune.learning_rate", 1e-6, 1e-3, log=True),
    )


def contrastive_space(config: TrainConfig) -> tuple[Parameter, ...]:
    """The space of a CLIP or a dual encoder: how it trains."""
    assert isinstance(config, ContrastiveConfig)
    return _DUAL if isinstance(config.encoder, DualEncoder) else _CLIP


def baseline_space(config: TrainConfig) -> tuple[Parameter, ...]:
    """The space of a baseline: the trees of ``magpie``; ``mean`` has nothing to search."""
    assert isinstance(config, BaselineConfig)
    return (Parameter("n_estimators", choices=(100, 200, 400, 800)),) if config.name == "magpie" else ()


def _backbone(path: str, modality: str) -> tuple[Parameter, ...]:
    choices = _BACKBONES.get(modality)
    return (Parameter(f"{path}features.backbone", choices=choices),) if choices else ()


def _joined(config: StackConfig) -> tuple[Parameter, ...]:
    """The space of a stack that a regressor joins: which of its towers, joined how, and what they read."""
    names = config.modalities
    subsets = ["-".join(towers) for n in range(len(names), 1, -1) for towers in combinations(names, n)]
    # A stack that joins features has no regressors of single towers to search; elsewhere these stay as they are.
    read = [parameter for name in names for parameter in _backbone(f"towers.{name}.", name)]
    return (
        *((Parameter("towers", choices=tuple(subsets)),) if len(subsets) > 1 else ()),
        Parameter("join.name", choices=_REGRESSORS),
        *read,
    )
