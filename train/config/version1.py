"""Configurations of version 1: one flat set of fields, read and written for registries of release 0.1.0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.errors import ConfigurationError
from train.config.config import TrainConfig
from train.config.schema import (
    BaselineConfig,
    ClipEncoder,
    ContrastiveConfig,
    DualEncoder,
    NetworkHead,
    NetworkJoin,
    StackConfig,
    TowerConfig,
)
from train.modalities.features import FeatureConfig, ImageFeatures, TextFeatures

__all__ = ["KINDS_1", "from_version_1", "to_version_1"]

_TOWERS = ("image", "text", "composition", "density")

KINDS_1 = (*_TOWERS, "stacked", "clip", "dual-encoder", "baseline-mean", "baseline-magpie")
"""Kinds of models that version 1 had."""
_READ_FEATURES = ("gaussian-process",)
"""Regressors of release 0.1.0 that a stack fits to features; all others were fitted to predictions."""

_FEATURES: Mapping[str, Mapping[str, str]] = {
    "image": {
        "recipe": "recipe",
        "image_backbone": "backbone",
        "image_size": "size",
        "image_views": "views",
        "image_average": "average",
        "image_augment": "augment",
    },
    "text": {"text_level": "text_level", "text_backbone": "backbone"},
    "composition": {"composition_backbone": "backbone"},
    "density": {"density_backbone": "backbone"},
}
"""By modality: field of version 1 -> field of its features."""

_TRAINING = ("readout", "finetune", "finetune_enabled", "stop_fraction")


def from_version_1(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the present version, of those of version 1.

    Parameters
    ----------
    values
        Fields of version 1, ``kind`` among them.

    Raises
    ------
    ConfigurationError
        For a field that version 1 did not have, or that has no effect on the kind.
    """
    left = dict(values)
    kind = left.pop("kind")
    made: dict[str, Any] = {name: left.pop(name) for name in ("target",) if name in left}
    if kind in _TOWERS:
        made |= {"type": "tower", **_tower(kind, left), **_dense(left)}
    elif kind == "stacked":
        towers = left.pop("stack_towers", ["image", "text"])
        if not isinstance(towers, list | tuple) or any(tower not in _TOWERS for tower in towers):
            raise ConfigurationError(f"stack_towers is {towers!r}; give a list of {', '.join(_TOWERS)}, each once")
        made |= {"type": "stack", "towers": [_tower(tower, left) for tower in towers], "join": _join(left)}
        made |= _dense(left)
    elif kind in ("clip", "dual-encoder"):
        made |= {"type": "contrastive", **_taken(left, {"recipe": "recipe", "text_level": "text_level"})}
        names = ("image_backbone", "image_size", "text_backbone", "projection_dim", "projection_dropout", "align")
        clip = {"type": "clip", **_taken(left, {"clip": "name"})} if kind == "clip" else {}
        made["encoder"] = clip or {"type": "dual", **_taken(left, {name: name for name in names})}
        made["training"] = _taken(left, {name: name for name in _TRAINING})
    elif kind in ("baseline-mean", "baseline-magpie"):
        made |= {
            "type": "baseline",
            "name": kind.removeprefix("baseline-"),
            **_taken(left, {"n_estimators": "n_estimators"}),
        }
    else:
        raise ConfigurationError(f"kind is {kind!r}; choose from {', '.join(KINDS_1)}")
    if left:
        raise ConfigurationError(f"{next(iter(left))} has no effect on kind {kind!r}; leave it out")
    return made


def to_version_1(config: TrainConfig) -> dict[str, Any] | None:
    """Fields of version 1 of a configuration, as release 0.1.0 stored them.

    An experiment of that release is found by their checksum, so that it is not repeated.

    Parameters
    ----------
    config
        Any configuration.

    Returns
    -------
    dict or None
        None where version 1 had no such model.
    """
    flat: dict[str, Any] = {"kind": config.kind, "target": config.target}
    if isinstance(config, TowerConfig):
        if config.modality not in _TOWERS:
            return None
        flat |= _features(config.modality, config.features, dense=isinstance(config.head, NetworkHead))
        flat |= _head(config.modality, config.head)
        return flat | (_stored_dense(config) if config.is_network else {})
    if isinstance(config, StackConfig):
        if any(name not in _TOWERS for name in config.modalities):
            return None
        flat |= {"stack_towers": list(config.modalities), "join": config.join.name}
        for tower in config.towers:
            dense = isinstance(tower.head, NetworkHead)
            flat |= _features(tower.modality, tower.features, dense=dense and not config.joins_features)
            head = _head(tower.modality, tower.head)
            name = f"{tower.modality}_regressor"
            flat |= {name: head[name]} if config.joins_features else head
        if isinstance(config.join, NetworkJoin):
            flat |= {"stacked_widths": list(config.join.widths), "stacked_dropout": config.join.dropout}
            flat |= {"stack_features": config.join.tower_features}
        trains = config.is_network or any(isinstance(tower.head, NetworkHead) for tower in config.towers)
        return flat | (_stored_dense(config) if trains and not config.joins_features else {})
    if isinstance(config, ContrastiveConfig):
        flat |= {"recipe": config.recipe, "text_level": config.text_level, **_training(config)}
        if isinstance(config.encoder, ClipEncoder):
            return flat | {"clip": config.encoder.name}
        assert isinstance(config.encoder, DualEncoder)
        encoder = config.encoder.to_dict()
        del encoder["type"]
        return flat | encoder
    if isinstance(config, BaselineConfig):
        return flat | ({"n_estimators": config.n_estimators} if config.name == "magpie" else {})
    return None


# ---------------------------------------------------------------------------- version 1 -> present


def _taken(left: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Fields that are there, under their present names; they are removed from ``left``."""
    return {new: left.pop(old) for old, new in names.items() if old in left}


def _tower(modality: str, left: dict[str, Any]) -> dict[str, Any]:
    features = _taken(left, _FEATURES[modality])
    regressor = left.pop(f"{modality}_regressor", "network")
    layers = _taken(left, {f"{modality}_widths": "widths", f"{modality}_dropout": "dropout"})
    if regressor != "network" and layers:
        raise ConfigurationError(f"{modality}_{next(iter(layers))} has no effect on a regressor; leave it out")
    head = {"type": "network", **layers} if regressor == "network" else {"type": "regressor", "name": regressor}
    return {"modality": modality, "features": features, "head": head}


def _join(left: dict[str, Any]) -> dict[str, Any]:
    name = left.pop("join", "network")
    if name == "network":
        names = {"stacked_widths": "widths", "stacked_dropout": "dropout", "stack_features": "tower_features"}
        return {"type": "network", **_taken(left, names)}
    return {"type": "regressor", "name": name, "reads": "features" if name in _READ_FEATURES else "predictions"}


def _dense(left: dict[str, Any]) -> dict[str, Any]:
    training = _taken(left, {name: name for name in _TRAINING})
    targets = _taken(left, {"auxiliary_targets": "auxiliary_targets"})
    return ({"training": training} if training else {}) | targets


# ---------------------------------------------------------------------------- present -> version 1


def _features(modality: str, features: FeatureConfig, *, dense: bool) -> dict[str, Any]:
    flat: dict[str, Any] = {old: getattr(features, new) for old, new in _FEATURES[modality].items()}
    if isinstance(features, ImageFeatures | TextFeatures) and not dense:
        flat.pop("image_augment", None)
    return flat


def _head(modality: str, head: Any) -> dict[str, Any]:
    flat: dict[str, Any] = {f"{modality}_regressor": head.name}
    if isinstance(head, NetworkHead):
        flat |= {f"{modality}_widths": list(head.widths), f"{modality}_dropout": head.dropout}
    return flat


def _training(config: TrainConfig) -> dict[str, Any]:
    stored = config.training_config.to_dict()
    return {name: stored[name] for name in _TRAINING}


def _stored_dense(config: TowerConfig | StackConfig) -> dict[str, Any]:
    return {"auxiliary_targets": list(config.auxiliary_targets), **_training(config)}
