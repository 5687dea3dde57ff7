"""Search spaces: the parameters that tuning varies, for each kind of model.

For networks these are the parameters of training. Regressors find their own parameters, so that the space then contains
the choice of the regressor, of its features, and of the towers that a stack joins. A parameter is named by the path to
its field, as ``training.readout.learning_rate`` or ``towers.image.features.backbone``; widths are written ``512-256``,
towers ``text-density``. Fields outside the space keep the values of the configuration. The configuration's own value
always belongs to the space, so that it can be the first trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any

from registry.errors import ConfigurationError
from train.config.config import TrainConfig
from train.config.kinds import parse_config
from train.config.schema import (
    BaselineConfig,
    ContrastiveConfig,
    DualEncoder,
    NetworkJoin,
    StackConfig,
    TowerConfig,
)
from train.models.regressors.catalog import REGRESSORS

__all__ = ["Parameter", "apply", "every_choice", "space_of"]


@dataclass(frozen=True)
class Parameter:
    """One dimension of a space: a range, or a choice."""

    name: str
    """Path to the field."""
    low: float | None = None
    high: float | None = None
    log: bool = False
    """Whether a range is searched on a logarithmic scale."""
    choices: tuple[Any, ...] = ()

    def value_in(self, config: TrainConfig) -> Any:
        """The configuration's value, as the search represents it."""
        values = config.to_dict()
        if self.name == "towers":
            return "-".join(tower["modality"] for tower in values["towers"])
        value = _holder(values, self.name)[self.name.rpartition(".")[2]]
        return "-".join(map(str, value)) if isinstance(value, list) else value

    def including(self, config: TrainConfig) -> Parameter:
        """The parameter, widened where the configuration's own value is outside of it."""
        value = self.value_in(config)
        if self.choices:
            return self if value in self.choices else replace(self, choices=(*self.choices, value))
        assert self.low is not None
        assert self.high is not None
        return replace(self, low=min(self.low, value), high=max(self.high, value))

    def suggest(self, trial: Any) -> Any:
        """Take a value from an Optuna trial."""
        if self.choices:
            return trial.suggest_categorical(self.name, list(self.choices))
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


def space_of(config: TrainConfig) -> tuple[Parameter, ...]:
    """The space of a configuration, its own values included.

    Parameters
    ----------
    config
        What the search begins with.

    Raises
    ------
    ConfigurationError
        If the kind has no space, or a stack's towers are too many to search with.
    """
    space: tuple[Parameter, ...] = ()
    if isinstance(config, TowerConfig):
        space = _dense_tower(config.modality) if config.is_network else _regressor_tower("", config.modality)
    elif isinstance(config, StackConfig):
        space = _stack(config)
    elif isinstance(config, ContrastiveConfig):
        space = _DUAL if isinstance(config.encoder, DualEncoder) else _CLIP
    elif isinstance(config, BaselineConfig) and config.name == "magpie":
        space = (Parameter("n_estimators", choices=(100, 200, 400, 800)),)
    if not space:
        raise ConfigurationError(
            f"nothing to search for kind {config.kind!r}; choose from image, text, composition, density, stacked,"
            " dual-encoder, clip, baseline-magpie"
        )
    return tuple(parameter.including(config) for parameter in space)


def every_choice(space: Sequence[Parameter]) -> list[dict[str, Any]] | None:
    """All members of a space of choices alone, in a fixed order; None where a parameter has a range.

    Parameters
    ----------
    space
        As :func:`space_of` gives it.
    """
    if any(not parameter.choices for parameter in space):
        return None
    names = [parameter.name for parameter in space]
    return [dict(zip(names, values, strict=True)) for values in product(*(parameter.choices for parameter in space))]


def apply(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """A configuration with the values of a trial.

    Parameters
    ----------
    config
        What the search began with.
    values
        By name of the parameter, as :meth:`Parameter.suggest` gave them.
    """
    fields = config.to_dict()
    for name, value in values.items():
        if name == "towers":
            continue
        holder, field = _holder(fields, name), name.rpartition(".")[2]
        if isinstance(holder[field], list):
            value = [int(width) for width in value.split("-")]
        holder[field] = value
        if name == "join.name":
            holder["reads"] = _reads(value)
    if "towers" in values:
        chosen = values["towers"].split("-")
        fields["towers"] = [tower for tower in fields["towers"] if tower["modality"] in chosen]
    return parse_config(fields)


# ------------------------------------------------------------------------------ private

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


def _dense_tower(modality: str) -> tuple[Parameter, ...]:
    return (
        Parameter("head.widths", choices=_WIDTHS.get(modality, _OTHER_WIDTHS)),
        Parameter("head.dropout", 0.0, 0.6),
        *_phase("training.readout", 1e-4, 5e-3),
    )


def _backbone(path: str, modality: str) -> tuple[Parameter, ...]:
    choices = _BACKBONES.get(modality)
    return (Parameter(f"{path}features.backbone", choices=choices),) if choices else ()


def _regressor_tower(path: str, modality: str) -> tuple[Parameter, ...]:
    return (*_backbone(path, modality), Parameter(f"{path}head.name", choices=_REGRESSORS))


def _stack(config: StackConfig) -> tuple[Parameter, ...]:
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


def _joined(config: StackConfig) -> tuple[Parameter, ...]:
    """Space of a stack that a regressor joins: selection of its towers, join, and features of the towers."""
    names = config.modalities
    subsets = ["-".join(towers) for n in range(len(names), 1, -1) for towers in combinations(names, n)]
    # A stack that joins features has no regressors of single towers to search; elsewhere these stay as they are.
    read = [parameter for name in names for parameter in _backbone(f"towers.{name}.", name)]
    return (
        *((Parameter("towers", choices=tuple(subsets)),) if len(subsets) > 1 else ()),
        Parameter("join.name", choices=_REGRESSORS),
        *read,
    )


def _holder(fields: dict[str, Any], path: str) -> dict[str, Any]:
    """The mapping that holds the field of a path."""
    holder: Any = fields
    for part in path.split(".")[:-1]:
        if isinstance(holder, list):
            holder = next(tower for tower in holder if tower["modality"] == part)
        else:
            holder = holder[part]
    found: dict[str, Any] = holder
    return found


def _reads(regressor: str) -> str:
    return "features" if REGRESSORS[regressor].joins_features else "predictions"
