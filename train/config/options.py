"""Options of a model as users give them, and the configuration that they make.

The command line, Python and the web name the same options; what is left out has the default that
:mod:`train.config.defaults` gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from registry.errors import ConfigurationError
from registry.properties import TARGETS
from train.config.config import FIXED_MODALITIES, SHARED_SPACE, TOWERS, TrainConfig
from train.config.defaults import recommended
from train.models.devices import has_accelerator

__all__ = ["ModelOptions", "build_config"]


@dataclass(frozen=True)
class ModelOptions:
    """Options of a model; None is the default of its kind."""

    recipe: str | None = None
    """Image recipe."""
    text_level: str | None = None
    """Text level: formula, keywords or all."""
    image_backbone: str | None = None
    """Image backbone: a name, a folder or a hub id."""
    image_size: int | None = None
    """Pixels a side that the image backbone reads."""
    views: int | None = None
    """Views of a crystal that the channels of an image hold."""
    average_views: bool = True
    """Whether a prediction is the mean over all views, and not of the first alone."""
    augment: bool = False
    """Whether fine-tuning rotates and mirrors images at random."""
    text_backbone: str | None = None
    """Text backbone: a name, a folder or a hub id."""
    composition_features: str | None = None
    """Name in ``COMPOSITION_FEATURIZERS``."""
    density_features: str | None = None
    """Name in ``DENSITY_FEATURIZERS``."""
    regressors: Mapping[str, str] = field(default_factory=dict)
    """By tower: ``network``, or a name in ``REGRESSORS``."""
    towers: tuple[str, ...] | None = None
    """Towers of a stack."""
    join: str | None = None
    """How a stack joins its towers: ``network``, or a name in ``REGRESSORS``."""
    tower_features: str | None = None
    """Tower features that the network of a stack is fitted to: ``in-sample`` or ``out-of-fold``."""
    clip: str | None = None
    """A CLIP: a folder or a hub id; None: the dual encoder."""
    finetune: bool | None = None
    """Whether backbones are fine-tuned; None: where there is a GPU."""
    dense: bool = False
    """Whether what is left out has the published defaults with dense readouts, instead of the recommended ones."""
    multi_task: bool = False
    """Whether dense readouts learn the other targets too."""
    max_epochs: int | None = None
    """Epochs of each phase at most."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a configuration, for instance from a file; they take precedence over the options above."""


def build_config(kind: str, target: str, options: ModelOptions | None = None) -> TrainConfig:
    """Configuration of a model of this kind with these options.

    Parameters
    ----------
    kind
        ``image``, ``text``, ``composition``, ``density``, ``stacked``, ``clip``, ``baseline-mean`` or
        ``baseline-magpie``.
    target
        Property that the model predicts.
    options
        What differs from the defaults.

    Raises
    ------
    ConfigurationError
        If an option has no effect on this kind, or its value cannot be used; the message names it.
    """
    chosen = options or ModelOptions()
    if kind == "clip" and chosen.clip is None:
        kind = "dual-encoder"
    names = {
        "recipe": chosen.recipe,
        "text_level": chosen.text_level,
        "image_backbone": chosen.image_backbone,
        "image_size": chosen.image_size,
        "image_views": chosen.views,
        "text_backbone": chosen.text_backbone,
        "composition_backbone": chosen.composition_features,
        "density_backbone": chosen.density_features,
        "stack_towers": chosen.towers,
        "join": chosen.join,
        "stack_features": chosen.tower_features,
        "clip": chosen.clip,
        **{f"{tower}_regressor": name for tower, name in chosen.regressors.items()},
    }
    given: dict[str, Any] = {name: value for name, value in names.items() if value is not None}
    if given.get("image_views") == 1:
        del given["image_views"]
    if not chosen.average_views:
        given["image_average"] = False
    if chosen.augment:
        given["image_augment"] = True
    if (
        kind in ("image", "composition", "density", "stacked")
        and not chosen.dense
        and not (chosen.fields and kind != "image")
    ):
        dense = chosen.multi_task or (kind == "image" and (bool(chosen.finetune) or bool(chosen.fields)))
        given = recommended(kind, given, dense=dense)
    # A recipe and a text level also describe the split, so that every kind takes them.
    reads = (
        TOWERS if kind in SHARED_SPACE else given.get("stack_towers", ("image", "text")) if kind == "stacked" else kind
    )
    for name, tower in (("recipe", "image"), ("text_level", "text")):
        if tower not in reads:
            given.pop(name, None)
    config = TrainConfig.from_dict({"kind": kind, "target": target, **given, **chosen.fields})
    trains = kind == "stacked" or "readout" in config.to_dict()
    if trains and kind not in FIXED_MODALITIES:
        usual = chosen.fields.get("finetune_enabled", has_accelerator())
        config = replace(config, finetune_enabled=usual if chosen.finetune is None else chosen.finetune)
    if chosen.multi_task:
        if not trains:
            raise ConfigurationError("multi_task is for dense readouts, and this model has none")
        config = replace(config, auxiliary_targets=tuple(name for name in TARGETS if name != target))
    if chosen.max_epochs is not None and trains:
        config = replace(
            config,
            readout=replace(config.readout, max_epochs=chosen.max_epochs),
            finetune=replace(config.finetune, max_epochs=chosen.max_epochs),
            align=replace(config.align, max_epochs=chosen.max_epochs),
        )
    return config
