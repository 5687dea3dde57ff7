"""Pixel statistics without a trained network: histograms and a bank of fixed filters.

This image backbone has no trained weights and no scale for single images, so that absolute densities are preserved; a
pre-trained network is trained to ignore brightness, but the brightness of a slice in e/Å^3 is a physical quantity. For
each image:

1. each channel is compressed by the fixed scale of its kind to [-1, 1]
   (:meth:`train.backbones.image.ChannelScale.compress`);
2. joint histograms are computed of pairs of kinds in one plane, and of each channel with the length of its gradient
   (square root of the shares of pixels; piecewise linear in each value, so that they are continuous in the density);
3. a filter bank (Gaussian derivatives at scales of 1 to 16 pixels) gives four fields that are invariant to in-plane
   rotations and reflections: the value, the length of the gradient, the Laplacian, and the anisotropy of the curvature;
   the features are the mean, the standard deviation and five quantiles of each over the image.

The features therefore depend little on the position and rotation of the window. Filters: J. J. Koenderink, A. J. van
Doorn, Biol. Cybern. 55, 367 (1987).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.backbones.image import ImageBackbone, PretrainedImageNetwork

__all__ = ["FilterBank", "PixelStatistics", "joint_histogram", "planes_of"]

SCALES = (1, 2, 4, 8, 16)
"""Standard deviations of the filters [pixels]."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Quantiles of each field over the image."""
BINS = 20
"""Number of bins along each axis of a joint histogram."""
VALUE_RANGE = (-1.0, 1.0)
"""Range of compressed values in histograms."""
GRADIENT_LIMIT = 0.15
"""Largest length of a gradient [compressed value per pixel] in histograms; larger ones are clamped."""
FIELDS = 4
"""Number of fields at each scale."""

_SMALL = 1e-10
"""Added under square roots, so that gradients at zero exist; attributions of pixels need them."""


class FilterBank(nn.Module):
    """Compressed channels -> statistics, (N, C, H, W) -> (N, D), plane after plane.

    Parameters
    ----------
    planes
        Channels of each plane.
    """

    def __init__(self, planes: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.planes = tuple(tuple(plane) for plane in planes)
        filtered = len(SCALES) * FIELDS * (2 + len(QUANTILES))
        self.num_features = sum(
            (math.comb(len(plane), 2) + len(plane)) * BINS**2 + len(plane) * filtered for plane in self.planes
        )
        # Buffers, so that the checksum of the tensors depends on the parameters.
        self.register_buffer("scales", torch.tensor(SCALES, dtype=torch.float32))
        self.register_buffer("quantiles", torch.tensor(QUANTILES, dtype=torch.float32))

    def forward(self, values: Tensor) -> Tensor:
        """Statistics of images with values in [-1, 1]."""
        return torch.cat([self._plane(values[:, list(plane)]) for plane in self.planes], dim=1)

    def _plane(self, values: Tensor) -> Tensor:
        fields = [self._fields(values, scale) for scale in SCALES]
        slopes = fields[0][:, :, 1]
        kinds = range(values.shape[1])
        parts = [
            joint_histogram(values[:, i], values[:, j], VALUE_RANGE, VALUE_RANGE) for i, j in combinations(kinds, 2)
        ]
        parts += [joint_histogram(values[:, i], slopes[:, i], VALUE_RANGE, (0.0, GRADIENT_LIMIT)) for i in kinds]
        parts = [torch.sqrt(histogram + _SMALL) - math.sqrt(_SMALL) for histogram in parts]
        for scale, field in zip(SCALES, fields, strict=True):
            step = max(1, scale // 2)  # a smooth field is sampled at fewer points
            coarse = nn.functional.avg_pool2d(field.flatten(1, 2), step)
            pixels = coarse.unflatten(1, field.shape[1:3]).flatten(3)  # N x C x 4 x M
            spread = torch.sqrt(pixels.var(dim=3, correction=0) + _SMALL)
            marks = torch.quantile(pixels, self.get_buffer("quantiles"), dim=3)  # 5 x N x C x 4
            parts.append(torch.cat([pixels.mean(3)[None], spread[None], marks]).permute(1, 2, 3, 0).flatten(1))
        return torch.cat(parts, dim=1)

    def _fields(self, values: Tensor, scale: int) -> Tensor:
        """Value, gradient length, Laplacian and anisotropy at a scale, each per pixel, (N, C, 4, H, W)."""
        height, width = values.shape[-2:]
        down = [torch.from_numpy(_derivative(height, scale, order)).to(values) for order in range(3)]
        across = [torch.from_numpy(_derivative(width, scale, order)).to(values).T for order in range(3)]
        rows = [filter_ @ values for filter_ in down]
        smooth, x, xx = (rows[0] @ filter_ for filter_ in across)
        y, xy = rows[1] @ across[0], rows[1] @ across[1]
        yy = rows[2] @ across[0]
        slope = torch.sqrt(x**2 + y**2 + _SMALL)
        bend, twist = xx + yy, torch.sqrt((xx - yy) ** 2 + 4 * xy**2 + _SMALL)
        # Derivatives are multiplied by powers of the scale, so that they are comparable between scales.
        return torch.stack([smooth, slope * scale, bend * scale**2, twist * scale**2], dim=2)


class PixelStatistics(ImageBackbone):
    """The filter bank behind the fixed scale of each channel, listed as ``pixel_statistics`` in ``IMAGE_BACKBONES``."""

    def __init__(
        self, name: str, pretrained: PretrainedImageNetwork, *, channels: Sequence[str], image_size: int
    ) -> None:
        super().__init__(name, pretrained, channels=channels, image_size=image_size)
        self._network = FilterBank(planes_of(self.channels))
        self.dim = self._network.num_features

    def prepare(self, pixels: Tensor) -> Tensor:
        """Compressed channels, (N, C, H, W) in the unit of their recipe -> (N, C, S, S) in [-1, 1].

        Raises
        ------
        ModelError
            If the number of channels differs.
        InputError
            If a channel of kind ``imported`` is not in [0, 1].
        """
        self.check(pixels)
        values = torch.stack([scale.compress(pixels[:, i]) for i, scale in enumerate(self._scales)], dim=1)
        return self.resize(values)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features, (N, C, H, W) in the unit of the recipe -> (N, dim); see :meth:`prepare`."""
        features: Tensor = self._network(self.prepare(pixels))
        return features

    def preprocessing(self) -> dict[str, Any]:
        """Description of the compression and of the filter bank."""
        common = super().preprocessing()
        return {
            "channels": common["channels"],
            "compressed": "to [-1, 1]",
            "resize": common["resize"],
            "filters": "Gaussian derivatives, orders 0 to 2; value, slope, Laplacian, anisotropy",
            "scales": list(SCALES),
            "statistics": ["mean", "std", *QUANTILES],
            "histograms": {
                "bins": BINS,
                "values": list(VALUE_RANGE),
                "gradient": GRADIENT_LIMIT,
                "root": True,
            },
            "planes": [list(plane) for plane in planes_of(self.channels)],
            "version": 1,
        }


def joint_histogram(first: Tensor, second: Tensor, one: tuple[float, float], two: tuple[float, float]) -> Tensor:
    """Joint histogram of two values over pixels; a pixel is divided linearly between adjacent bins.

    Parameters
    ----------
    first, second
        Shape (N, H, W), any unit.
    one, two
        Range of each value; values outside are clamped.

    Returns
    -------
    Tensor
        Shape (N, B^2) with B = :data:`BINS`; each row sums to 1.
    """
    rows = _shares(first.flatten(1), *one)  # N x M x B
    columns = _shares(second.flatten(1), *two)
    return (rows.transpose(1, 2) @ columns / first[0].numel()).flatten(1)


def planes_of(channels: Sequence[str]) -> list[list[int]]:
    """Group channels by plane: a repeated kind begins the next plane.

    >>> planes_of(["total", "deformation", "total", "deformation"])
    [[0, 1], [2, 3]]
    """
    planes: list[list[int]] = []
    seen: set[str] = set()
    for i, kind in enumerate(channels):
        if not planes or kind in seen:
            planes.append([])
            seen = set()
        planes[-1].append(i)
        seen.add(kind)
    return planes


def _shares(values: Tensor, low: float, high: float) -> Tensor:
    at = ((values - low) / (high - low)).clamp(0, 1) * (BINS - 1)
    return (1 - (at.unsqueeze(-1) - torch.arange(BINS).to(values)).abs()).clamp(min=0)


@cache
def _derivative(size: int, scale: int, order: int) -> NDArray[np.float32]:
    """Convolution with a derivative of a Gaussian along an axis of ``size`` pixels, as a matrix (size, size).

    The image is continued by reflection at its edges, which adds neither new values nor steps.
    """
    reach = 4 * scale
    x = np.arange(-reach, reach + 1)
    kernel = np.exp(-(x**2) / (2 * scale**2))
    kernel = kernel / kernel.sum()
    if order == 1:
        kernel = kernel * x / scale**2
    elif order == 2:
        kernel = kernel * (x**2 - scale**2) / scale**4
        kernel = kernel - kernel.mean()  # so that the curvature of a constant is zero
    matrix = np.zeros((size, size))
    rows = np.arange(size)
    for offset, weight in zip(x, kernel, strict=True):
        source = (rows + offset) % (2 * size)
        np.add.at(matrix, (rows, np.where(source < size, source, 2 * size - 1 - source)), weight)
    return matrix.astype(np.float32)
