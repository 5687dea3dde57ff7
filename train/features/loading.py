"""Construction of a backbone or a featurizer from the description stored beside a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry.errors import ConfigurationError
from train.backbones.clip import load_clip_image, load_clip_text
from train.backbones.image_loaders import load_image_backbone
from train.backbones.text import load_text_backbone
from train.features.featurizers import Featurizer, load_featurizer

__all__ = ["load_backbone"]


def load_backbone(spec: Mapping[str, Any], *, models: Path | None = None) -> Featurizer:
    """The backbone with its pre-trained weights, or the featurizer, that :meth:`Featurizer.spec` described.

    Parameters
    ----------
    spec
        Description, as stored beside a model.
    models
        Folder of pre-trained backbones; None is ``ECDREG_MODELS``.

    Raises
    ------
    ConfigurationError
        If the backbone is not found on this machine, or the modality is unknown.
    """
    modality, clip = spec.get("modality"), spec.get("family") == "clip"
    if modality == "image" and clip:
        return load_clip_image(spec["name"], channels=spec["channels"], models=models)
    if modality == "text" and clip:
        return load_clip_text(spec["name"], max_tokens=spec["max_tokens"], models=models)
    if modality == "image":
        return load_image_backbone(
            spec["name"], channels=spec["channels"], image_size=spec["image_size"], models=models
        )
    if modality == "text":
        return load_text_backbone(spec["name"], max_tokens=spec["max_tokens"], models=models)
    if modality in ("composition", "density"):
        return load_featurizer(modality, spec["name"])
    raise ConfigurationError(
        f"backbone of unknown modality {modality!r}; image, text, composition and density are supported"
    )
