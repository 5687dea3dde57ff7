"""Kinds of models: the type of their configuration, how they are fitted, and how they are restored.

:data:`MODEL_KINDS` is the one table of them; another package adds an entry through the entry-point group
``ecdreg.model_kinds``. Entries of this project name their functions by module, so that a configuration can be read
without importing PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from registry.catalog import Catalog
from registry.errors import ConfigurationError
from train.config.config import VERSION, TrainConfig
from train.config.schema import BaselineConfig, ContrastiveConfig, StackConfig, TowerConfig
from train.config.version1 import from_version_1
from train.config_base import validated

if TYPE_CHECKING:
    from train.config.parameters import Parameter
    from train.models.fitted import FitContext, FittedModel, RestoreContext

__all__ = ["MODEL_KINDS", "ModelKind", "parse_config"]


@dataclass(frozen=True)
class ModelKind:
    """A kind of model; its name in :data:`MODEL_KINDS` is the field ``type`` of its configurations."""

    config: type[TrainConfig]
    """Type of its configurations."""
    fit: Callable[[FitContext], Iterator[FittedModel]]
    """Fits a model from fresh weights; yields it after each phase, and changes it in the next."""
    restore: Callable[[TrainConfig, bytes, RestoreContext], FittedModel]
    """Reads the model that :meth:`FittedModel.to_bytes` wrote."""
    space: Callable[[TrainConfig], tuple[Parameter, ...]] | None = None
    """Parameters that a search varies; None: it varies nothing."""


MODEL_KINDS: Catalog[ModelKind] = Catalog("model kinds")
"""Kinds of models by the field ``type`` of their configurations."""


def parse_config(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration in a mapping, as JSON or TOML gives it; a field that is left out has its default.

    Parameters
    ----------
    values
        Fields with ``type`` and ``target`` among them; or those of a configuration of version 1, which has the
        field ``kind``.

    Raises
    ------
    ConfigurationError
        For a field that is missing, unknown, without effect, or unusable; the message names it.
    UnknownNameError
        For an unknown kind of model or modality.
    """
    if "type" not in values and "kind" in values:
        values = from_version_1(values)
    if "type" not in values:
        raise ConfigurationError("type is missing from the configuration")
    version = values.get("version", VERSION)
    if version != VERSION:
        raise ConfigurationError(
            f"version is {version!r}; this release reads versions 1 and {VERSION} of configurations"
        )
    return validated(MODEL_KINDS[str(values["type"])].config, values)


def _lazy(module: str, function: str) -> Callable[..., Any]:
    """A function that is imported when it is called."""

    def call(*arguments: Any) -> Any:
        return getattr(import_module(module), function)(*arguments)

    return call


for _type, _config, _module in (
    ("tower", TowerConfig, "train.models.kinds.towers"),
    ("stack", StackConfig, "train.models.kinds.stacks"),
    ("contrastive", ContrastiveConfig, "train.models.kinds.contrastive"),
    ("baseline", BaselineConfig, "train.models.kinds.baselines"),
):
    _space = _lazy("train.models.kinds.spaces", f"{_type}_space")
    MODEL_KINDS.add(_type, ModelKind(_config, _lazy(_module, "fit"), _lazy(_module, "restore"), _space))
