"""Pre-trained networks by name: a package's resource, a folder, or a hub; and features made by a fixed rule.

:data:`IMAGE_BACKBONES` and :data:`TEXT_BACKBONES` list the names that need no path. Any
other name is a folder (absolute, or under ``ECDREG_MODELS``), else a hub id. Of compositions
and densities there are the names of :data:`COMPOSITION_BACKBONES` and :data:`DENSITY_BACKBONES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from registry.errors import ConfigurationError
from train.backbones.base import Backbone, tensors_sha256
from train.backbones.fixed import (
    COMPOSITION_BACKBONES,
    DENSITY_BACKBONES,
    CombinedFeatures,
    FixedFeatures,
    load_composition_backbone,
    load_density_backbone,
)
from train.backbones.image import CHANNEL_SCALES, IMAGE_BACKBONES, ImageBackbone, load_image_backbone
from train.backbones.text import TEXT_BACKBONES, TextBackbone, load_text_backbone

__all__ = [
    "CHANNEL_SCALES",
    "COMPOSITION_BACKBONES",
    "DENSITY_BACKBONES",
    "IMAGE_BACKBONES",
    "TEXT_BACKBONES",
    "Backbone",
    "CombinedFeatures",
    "FixedFeatures",
    "ImageBackbone",
    "TextBackbone",
    "load_backbone",
    "load_composition_backbone",
    "load_density_backbone",
    "load_image_backbone",
    "load_text_backbone",
    "tensors_sha256",
]


def load_backbone(spec: Mapping[str, Any], *, models: Path | None = None) -> Backbone:
    """The backbone that :meth:`Backbone.spec` described, with its pre-trained weights.

    Parameters
    ----------
    spec
        As stored beside a model.
    models
        Folder of pre-trained backbones; None is ``ECDREG_MODELS``.

    Raises
    ------
    ConfigurationError
        If the backbone cannot be resolved here, or the spec is of no known modality.
    """
    if spec.get("family") == "clip":
        from train.backbones.clip import load_clip_image, load_clip_text

        if spec["modality"] == "image":
            return load_clip_image(spec["name"], channels=spec["channels"], models=models)
        return load_clip_text(spec["name"], max_tokens=spec["max_tokens"], models=models)
    if spec.get("modality") == "image":
        return load_image_backbone(
            spec["name"], channels=spec["channels"], image_size=spec["image_size"], models=models
        )
    if spec.get("modality") == "text":
        return load_text_backbone(spec["name"], max_tokens=spec["max_tokens"], models=models)
    if spec.get("modality") == "composition":
        return load_composition_backbone(spec["name"])
    if spec.get("modality") == "density":
        return load_density_backbone(spec["name"])
    raise ConfigurationError(
        f"backbone of modality {spec.get('modality')!r}; image, text, composition and density are known"
    )
