"""Features of each modality: which input a tower reads, and which featurizer makes vectors of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from train.config_base import ConfigModel, Name, Whole

__all__ = [
    "CLIP_TOKENS",
    "TOKEN_LIMITS",
    "ClipImageFeatures",
    "ClipTextFeatures",
    "CompositionFeatures",
    "DensityFeatures",
    "FeatureConfig",
    "ImageFeatures",
    "TextFeatures",
]

TOKEN_LIMITS: Mapping[str, int] = {"formula": 11, "keywords": 100, "all": 512}
"""Tokens kept of a text, special tokens included, by text level (Massa et al., arXiv 2401.09301)."""

CLIP_TOKENS = 77
"""Tokens that a CLIP keeps, whatever the text level."""

_IMAGE_SIZES: Mapping[str, int] = {"inception_v3": 299}
"""Pixels a side that an image backbone was made for, where 160 are too few for it; without the tag of its weights."""


class FeatureConfig(ConfigModel):
    """Inputs of a tower for one modality, and the name of the featurizer that makes vectors of them."""

    backbone: Name
    """Name of the featurizer: a pre-trained network, or a fixed rule."""

    @property
    def view_count(self) -> int:
        """Views of a crystal that one input holds."""
        return 1

    @property
    def averages_views(self) -> bool:
        """Whether a prediction uses all views, and not the first alone."""
        return True

    @property
    def augments_views(self) -> bool:
        """Whether fine-tuning rotates and mirrors inputs at random."""
        return False

    @property
    def recipe_name(self) -> str | None:
        """Image recipe that the input needs; None for other modalities."""
        return None

    @property
    def text_level_name(self) -> str | None:
        """Text level that the input needs; None for other modalities."""
        return None


class ImageFeatures(FeatureConfig):
    """Slice images, and the backbone that reads them."""

    recipe: Name = "metric"
    """Image recipe."""
    backbone: Name = "efficientnet_lite0"
    """Name in ``IMAGE_BACKBONES``, a folder, or a timm name."""
    size: Annotated[int, Field(strict=True, ge=32)] = 160
    """Pixels a side that the backbone reads; by default 299 for inception_v3, 160 for others."""
    views: Whole = 1
    """Views of a crystal that the channels of its image hold, view after view (``metric-views`` has 4); with 1, all
    channels are one picture. A dense readout trains on one view of each row, drawn in every epoch, and a prediction is
    the mean over the views; a regressor reads the mean of their features."""
    average: Annotated[bool, Field(strict=True)] = True
    """Whether a prediction uses all views, and not the first alone."""
    augment: Annotated[bool, Field(strict=True)] = False
    """Whether fine-tuning rotates images by quarter turns and mirrors them, at random in every step."""

    @model_validator(mode="before")
    @classmethod
    def _default_size(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("size") is None:
            backbone = values.get("backbone", "efficientnet_lite0")
            architecture = str(backbone).rstrip("/").rsplit("/", 1)[-1].split(".")[0]
            return {**values, "size": _IMAGE_SIZES.get(architecture, 160)}
        return values

    @property
    def view_count(self) -> int:
        """Views of a crystal that the channels of an image hold."""
        return self.views

    @property
    def averages_views(self) -> bool:
        """Whether a prediction uses all views."""
        return self.average

    @property
    def augments_views(self) -> bool:
        """Whether fine-tuning rotates and mirrors images."""
        return self.augment

    @property
    def recipe_name(self) -> str | None:
        """The image recipe."""
        return self.recipe


class TextFeatures(FeatureConfig):
    """Texts, and the backbone that reads them."""

    text_level: Literal["formula", "keywords", "all"] = "keywords"
    """Text level."""
    backbone: Name = "minilm"
    """Name in ``TEXT_BACKBONES``, a folder, or a transformers hub id."""

    @property
    def max_tokens(self) -> int:
        """Tokens kept of a text, special tokens included."""
        return TOKEN_LIMITS[self.text_level]

    @property
    def text_level_name(self) -> str | None:
        """The text level."""
        return self.text_level


class CompositionFeatures(FeatureConfig):
    """Formulas, and the fixed rule that makes features of them."""

    backbone: Name = "magpie"
    """Name in ``COMPOSITION_FEATURIZERS``."""


class DensityFeatures(FeatureConfig):
    """Charge densities, and the fixed rule that makes features of them."""

    backbone: Name = "density-statistics"
    """Name in ``DENSITY_FEATURIZERS``."""


class ClipImageFeatures(ImageFeatures):
    """Slice images, read by the image half of a CLIP."""


class ClipTextFeatures(TextFeatures):
    """Texts, read by the text half of a CLIP."""

    @property
    def max_tokens(self) -> int:
        """Tokens kept of a text, special tokens included."""
        return CLIP_TOKENS
