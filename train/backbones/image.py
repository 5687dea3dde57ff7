"""Image backbones: slices in physical units -> features of a pre-trained network.

The adapter in front of the network is fixed: nothing in it is fitted, and all images have the same scale, so that the
absolute density is preserved:

1. each channel is mapped by the fixed scale of its kind to [0, 1] (:data:`CHANNEL_SCALES`);
2. resized to the network's input, bilinear and antialiased;
3. replicated to three channels and normalised by the network's documented mean and standard deviation of values in
   [0, 1];
4. encoded as one view for each channel by the same network; the features of the channels are concatenated.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from registry.catalog import Catalog
from registry.errors import ConfigurationError, InputError, ModelError
from train.backbones.base import Backbone

__all__ = [
    "CHANNEL_SCALES",
    "ChannelScale",
    "ImageBackbone",
    "PretrainedImageNetwork",
]


@dataclass(frozen=True)
class ChannelScale:
    """Fixed map of pixel values ``x`` to [0, 1], with clamping.

    ========  ============================================================
    linear    ``x / limit``
    asinh     ``asinh(x / scale) / asinh(limit / scale)``
    signed    ``(1 + asinh(x / scale) / asinh(limit / scale)) / 2``
    ========  ============================================================

    ``scale`` and ``limit`` are in the unit of the pixels.
    """

    form: Literal["linear", "asinh", "signed"]
    limit: float
    scale: float = 1.0

    def __call__(self, pixels: Tensor) -> Tensor:
        """Values in [0, 1], of the same shape."""
        if self.form == "linear":
            return (pixels / self.limit).clamp(0, 1)
        compressed = torch.asinh(pixels / self.scale) / math.asinh(self.limit / self.scale)
        return ((1 + compressed) / 2 if self.form == "signed" else compressed).clamp(0, 1)

    def compress(self, pixels: Tensor) -> Tensor:
        """Values in [-1, 1] with the sign of the pixels, of the same shape."""
        if self.form == "linear":
            return (pixels / self.limit).clamp(-1, 1)
        return (torch.asinh(pixels / self.scale) / math.asinh(self.limit / self.scale)).clamp(-1, 1)


CHANNEL_SCALES: Catalog[ChannelScale] = Catalog("channel scales")
"""Scales by density kind [e/Å^3], and for dimensionless images: ``imported`` (already in [0, 1]) and
``fourier`` (log(1 + magnitude))."""

CHANNEL_SCALES.add("total", ChannelScale("asinh", limit=50.0, scale=0.3))
CHANNEL_SCALES.add("deformation", ChannelScale("signed", limit=1.5, scale=0.02))
CHANNEL_SCALES.add("spin", ChannelScale("signed", limit=10.0, scale=0.02))
CHANNEL_SCALES.add("imported", ChannelScale("linear", limit=1.0))
CHANNEL_SCALES.add("fourier", ChannelScale("linear", limit=16.0))


@dataclass(frozen=True)
class PretrainedImageNetwork:
    """A network without its head, (N, 3, H, W) -> (N, D), and the documented properties of its input."""

    network: nn.Module
    mean: tuple[float, float, float]
    """Mean of input values in [0, 1]."""
    std: tuple[float, float, float]
    """Standard deviation of input values in [0, 1]."""
    min_size: int
    """Smallest side of an input [pixels]."""
    fixed_size: int | None = None
    """Only supported side of an input [pixels]; None if there are several."""
    backbone_type: type[ImageBackbone] | None = None
    """Adapter of the network; None for :class:`ImageBackbone`."""

    @property
    def dim(self) -> int:
        """Number of features D of one image."""
        # Some networks of timm have a further layer behind the pooling.
        return int(getattr(self.network, "head_hidden_size", None) or self.network.num_features)  # type: ignore[arg-type]


class ImageBackbone(Backbone):
    """A pre-trained image network behind the adapter of the module's docstring.

    Parameters
    ----------
    name
        Name in the catalog, a folder or a hub id.
    pretrained
        Network with its normalisation.
    channels
        Kind of each channel, from :data:`CHANNEL_SCALES`.
    image_size
        Side of the network's input [pixels].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, pretrained: PretrainedImageNetwork, *, channels: Sequence[str], image_size: int
    ) -> None:
        super().__init__()
        if not channels:
            raise ConfigurationError(f"backbone {name!r} for images without channels; give the kind of each")
        if image_size < pretrained.min_size:
            raise ConfigurationError(
                f"image_size is {image_size}; backbone {name!r} needs at least {pretrained.min_size} pixels"
            )
        if pretrained.fixed_size not in (None, image_size):
            raise ConfigurationError(
                f"image_size is {image_size}; backbone {name!r} takes images of {pretrained.fixed_size} pixels only,"
                f" give --image-size {pretrained.fixed_size}"
            )
        self.name = name
        self.modality = "image"
        self.channels = tuple(channels)
        self.image_size = image_size
        self._scales = tuple(CHANNEL_SCALES[kind] for kind in channels)
        self._network = pretrained.network
        self.register_buffer("mean", torch.tensor(pretrained.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(pretrained.std).view(3, 1, 1))
        self.dim = len(self.channels) * pretrained.dim
        self.eval()

    @property
    def network(self) -> nn.Module:
        """The pre-trained network, (M, 3, H, W) -> (M, D)."""
        return self._network

    def prepare(self, pixels: Tensor) -> Tensor:
        """Prepare slices as inputs of the network.

        Parameters
        ----------
        pixels
            Shape (N, C, H, W), in the unit of their recipe.

        Returns
        -------
        Tensor
            Shape (N, C, 3, S, S) with the input size S: one view for each channel.

        Raises
        ------
        ModelError
            If the number of channels differs.
        InputError
            If a channel of kind ``imported`` is not in [0, 1].
        """
        self.check(pixels)
        views = torch.stack([scale(pixels[:, i]) for i, scale in enumerate(self._scales)], dim=1)
        return (self.resize(views).unsqueeze(2) - self.mean) / self.std

    def check(self, pixels: Tensor) -> None:
        """Check the channels of slices, and the range of imported ones; raises as :meth:`prepare`."""
        if pixels.ndim != 4 or pixels.shape[1] != len(self.channels):
            raise ModelError(
                f"slices of shape {tuple(pixels.shape)}; the backbone takes (N, {len(self.channels)}, H, W)"
                f" with the channels {', '.join(self.channels)}"
            )
        _check_imported(pixels[:, [kind == "imported" for kind in self.channels]])

    def resize(self, views: Tensor) -> Tensor:
        """Views in [0, 1] at the network's input size, (N, C, H, W) -> (N, C, S, S)."""
        size = (self.image_size, self.image_size)
        if views.shape[-2:] == size:
            return views
        return nn.functional.interpolate(views, size=size, mode="bilinear", antialias=True)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features, (N, C, H, W) in the unit of the recipe -> (N, dim); see :meth:`prepare`."""
        views = self.prepare(pixels)
        features: Tensor = self._network(views.flatten(0, 1))  # N C x D
        return features.reshape(len(pixels), self.dim)

    def preprocessing(self) -> dict[str, Any]:
        """Description of the adapter and of the pooling."""
        return {
            "channels": [
                {"kind": kind, **dataclasses.asdict(scale)}
                for kind, scale in zip(self.channels, self._scales, strict=True)
            ],
            "resize": {"size": self.image_size, "mode": "bilinear", "antialias": True},
            "mean": [round(float(v), 6) for v in self.mean.flatten()],
            "std": [round(float(v), 6) for v in self.std.flatten()],
            "pooling": "global average",
        }

    def spec(self) -> dict[str, Any]:
        """Name, channels and size."""
        return {
            "modality": "image",
            "name": self.name,
            "channels": list(self.channels),
            "image_size": self.image_size,
        }


def _check_imported(pixels: Tensor) -> None:
    """Check the range of imported images, because clamping would hide a wrong scale."""
    if pixels.numel() and ((pixels < 0) | (pixels > 1)).any():
        raise InputError(
            f"imported images have pixels from {float(pixels.min()):g} to {float(pixels.max()):g}, outside [0, 1];"
            " rescale their NPY files to [0, 1], by one scale for all crystals, and ingest them again"
        )
