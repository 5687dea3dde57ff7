"""Options of a model as users give them, and the configuration that they make.

The command line, Python and the web name the same options; what is left out has the default of
:mod:`train.models.defaults`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.errors import ConfigurationError
from registry.properties import TARGETS
from train.backbones.devices import has_accelerator
from train.config.config import TrainConfig
from train.config.kinds import MODEL_KINDS, parse_config
from train.config.schema import NETWORK, ContrastiveConfig, DualEncoder, NetworkHead, StackConfig, TowerConfig
from train.modalities import MODALITIES
from train.models.defaults import ALL_TOWERS, PAPER_TOWERS, RECOMMENDED_JOIN, recommended_tower
from train.models.regressors.catalog import REGRESSORS

__all__ = ["KINDS", "ModelOptions", "all_kinds", "build_config"]

KINDS = (*ALL_TOWERS, "stacked", "clip", "dual-encoder", "baseline-mean", "baseline-magpie")
"""Kinds of models of this project."""

_TYPES = ("tower", "stack", "contrastive", "baseline")
"""Entries of ``MODEL_KINDS`` that make the kinds of this project."""


@dataclass(frozen=True)
class ModelOptions:
    """Options of a model; None is not given, and the default of its kind."""

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
    average_views: bool | None = None
    """Whether a prediction is the mean over all views, and not of the first alone."""
    augment: bool | None = None
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
    """Method by which a stack joins its towers: ``network``, or a name in ``REGRESSORS``."""
    tower_features: str | None = None
    """Tower features that the network of a stack is fitted to: ``in-sample`` or ``out-of-fold``."""
    clip: str | None = None
    """A CLIP: a folder or a hub id; None: the dual encoder."""
    finetune: bool | None = None
    """Whether backbones are fine-tuned; None: where there is a GPU."""
    dense: bool = False
    """Whether omitted values follow the paper's protocol with substitute backbones, that is dense readouts, instead of
    the recommended defaults."""
    multi_task: bool = False
    """Whether dense readouts learn the other targets too."""
    max_epochs: int | None = None
    """Epochs of each phase at most."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a configuration, for instance from a file; they take precedence over the options above, and
    omitted fields follow the paper's protocol with substitute backbones."""


def all_kinds() -> tuple[str, ...]:
    """Kinds of models: those of this project, and the modalities and the model kinds that other packages add."""
    added = {*MODALITIES, *MODEL_KINDS} - {*KINDS, *_TYPES}
    return (*KINDS, *sorted(added))


def build_config(kind: str, target: str, options: ModelOptions | None = None) -> TrainConfig:
    """Configuration of a model of this kind with these options.

    Parameters
    ----------
    kind
        One of :func:`all_kinds`.
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
    if kind not in all_kinds():
        raise ConfigurationError(f"kind is {kind!r}; choose from {', '.join(all_kinds())}")
    values = _merged({"target": target, **_values(kind, chosen)}, chosen.fields)
    config = parse_config(values)
    _check_effects(kind, config, chosen)
    return _trained(config, chosen)


# ---------------------------------------------------------------------- from options to fields

_FIELDS: Mapping[str, Mapping[str, str]] = {
    "image": {
        "recipe": "recipe",
        "image_backbone": "backbone",
        "image_size": "size",
        "views": "views",
        "average_views": "average",
        "augment": "augment",
    },
    "text": {"text_level": "text_level", "text_backbone": "backbone"},
    "composition": {"composition_features": "backbone"},
    "density": {"density_features": "backbone"},
}
"""By modality: option -> field of its features."""


def _values(kind: str, chosen: ModelOptions) -> dict[str, Any]:
    if kind.startswith("baseline-"):
        return {"type": "baseline", "name": kind.removeprefix("baseline-")}
    if kind in ("clip", "dual-encoder"):
        return {"type": "contrastive", **_contrastive(kind, chosen)}
    if kind in MODEL_KINDS:
        return {"type": kind}
    paper_protocol = chosen.dense or bool(chosen.fields)
    if kind != "stacked":
        dense = paper_protocol or chosen.multi_task or (kind == "image" and bool(chosen.finetune))
        recommended = {} if paper_protocol else recommended_tower(kind, in_stack=False, dense=dense)
        return {"type": "tower", **_tower(kind, chosen, recommended)}
    join = chosen.join
    paper_join = paper_protocol or join == NETWORK or chosen.tower_features is not None
    towers = chosen.towers or (PAPER_TOWERS if paper_join else ALL_TOWERS)
    for tower in towers:
        if tower not in MODALITIES:
            raise ConfigurationError(f"towers holds {tower!r}; choose from {', '.join(MODALITIES)}")
    dense = paper_join or chosen.multi_task
    parts = [
        _tower(tower, chosen, {} if paper_protocol else recommended_tower(tower, in_stack=True, dense=dense))
        for tower in towers
    ]
    return {
        "type": "stack",
        "towers": parts,
        "join": _join(join or (NETWORK if paper_join else RECOMMENDED_JOIN), chosen),
    }


def _tower(modality: str, chosen: ModelOptions, recommended: Mapping[str, Any]) -> dict[str, Any]:
    given = _given_features(modality, chosen)
    head: dict[str, Any] = dict(recommended.get("head", {"type": "network"}))
    features = dict(recommended.get("features", {}))
    if modality == "image" and "backbone" in given:
        head = {"type": "network"}  # the recommended regressor belongs to the recommended features
    if (regressor := chosen.regressors.get(modality)) is not None:
        head = {"type": "network"} if regressor == NETWORK else {"type": "regressor", "name": _known(regressor)}
    return {"modality": modality, "features": {**features, **given}, "head": head}


def _given_features(modality: str, chosen: ModelOptions) -> dict[str, Any]:
    """Fields of the features of a modality that options name."""
    given = {new: getattr(chosen, option) for option, new in _FIELDS.get(modality, {}).items()}
    return {name: value for name, value in given.items() if value is not None}


def _join(name: str, chosen: ModelOptions) -> dict[str, Any]:
    if name == NETWORK:
        features = {} if chosen.tower_features is None else {"tower_features": chosen.tower_features}
        return {"type": "network", **features}
    reads = "features" if REGRESSORS[_known(name)].joins_features else "predictions"
    return {"type": "regressor", "name": name, "reads": reads}


def _contrastive(kind: str, chosen: ModelOptions) -> dict[str, Any]:
    inputs = {"recipe": chosen.recipe, "text_level": chosen.text_level}
    if kind == "clip":
        encoder: dict[str, Any] = {"type": "clip", "name": chosen.clip}
    else:
        names = ("image_backbone", "image_size", "text_backbone")
        encoder = {"type": "dual", **{name: getattr(chosen, name) for name in names}}
    given = {name: value for name, value in encoder.items() if value is not None}
    return {**{name: value for name, value in inputs.items() if value is not None}, "encoder": given}


def _known(regressor: str) -> str:
    if regressor not in REGRESSORS:
        raise ConfigurationError(f"{regressor!r} is not a regressor; choose from {', '.join((NETWORK, *REGRESSORS))}")
    return regressor


# --------------------------------------------------------------------------- after the fields


def _check_effects(kind: str, config: TrainConfig, chosen: ModelOptions) -> None:
    """Refuse options that have no effect on the model."""
    for modality, options in _FIELDS.items():
        usable = modality in config.modalities and not config.is_baseline and kind != "clip"
        for name in options:
            # A recipe and a text level also describe the split, so that every kind takes them; one view is the default.
            free = name in ("recipe", "text_level") or (name == "views" and chosen.views == 1)
            if not usable and not free and getattr(chosen, name) is not None:
                raise ConfigurationError(f"{name} has no effect on kind {kind!r}; leave it out")
    for tower in chosen.regressors:
        if tower not in config.modalities or not isinstance(config, TowerConfig | StackConfig):
            raise ConfigurationError(f"a regressor of {tower!r} has no effect on kind {kind!r}; leave it out")
    for name in ("towers", "join", "tower_features"):
        if getattr(chosen, name) is not None and not isinstance(config, StackConfig):
            raise ConfigurationError(f"{name} has no effect on kind {kind!r}; leave it out")
    if isinstance(config, StackConfig) and chosen.tower_features is not None and not config.is_network:
        raise ConfigurationError("tower_features has no effect on a stack that a regressor joins; leave it out")
    if chosen.clip is not None and not isinstance(config, ContrastiveConfig):
        raise ConfigurationError(f"clip has no effect on kind {kind!r}; leave it out")


def _trained(config: TrainConfig, chosen: ModelOptions) -> TrainConfig:
    """The configuration with the options of training."""
    trains = _has_dense_layers(config)
    if chosen.multi_task and not trains:
        raise ConfigurationError("multi_task is for dense readouts, and this model has none")
    if not trains:
        return config
    training = config.training_config
    if any(MODALITIES[name].trains_backbone for name in config.modalities) or config.is_stack:
        file = chosen.fields.get("training", {}).get("finetune_enabled")
        usual = has_accelerator() if file is None else bool(file)
        training = training.replace(finetune_enabled=usual if chosen.finetune is None else chosen.finetune)
    if chosen.max_epochs is not None:
        training = training.limited(chosen.max_epochs)
    changed: dict[str, Any] = {"training": training}
    if chosen.multi_task:
        changed["auxiliary_targets"] = tuple(name for name in TARGETS if name != config.target)
    encoder = config.encoder if isinstance(config, ContrastiveConfig) else None
    if chosen.max_epochs is not None and isinstance(encoder, DualEncoder):
        changed["encoder"] = encoder.replace(align=encoder.align.replace(max_epochs=chosen.max_epochs))
    return config.replace(**changed)


def _has_dense_layers(config: TrainConfig) -> bool:
    heads = [tower.head for tower in config.towers] if isinstance(config, StackConfig) else []
    return config.is_network or any(isinstance(head, NetworkHead) for head in heads)


def _merged(values: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Values with fields of a file in their place; towers are matched by their modality."""
    merged = dict(values)
    for name, value in fields.items():
        present = merged.get(name)
        if name == "towers" and isinstance(value, list | tuple):
            own = {tower["modality"]: tower for tower in merged.get("towers", ())}
            merged[name] = [_merged(own.get(tower.get("modality"), {}), tower) for tower in value]
        elif isinstance(present, dict) and isinstance(value, Mapping):
            same = present.get("type") == value.get("type", present.get("type"))
            merged[name] = _merged(present, value) if same else dict(value)
        else:
            merged[name] = value
    return merged
