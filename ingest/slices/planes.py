"""Planes through a periodic density, as arrays of pixels.

Two ways: :func:`index_slice`, a lookup in grid indices, and :func:`metric_slice`, a plane with
orthonormal axes in Å, read from the native grid by a periodic spline. Neither builds a supercell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.slices.symmetry import Setting
from registry.crystals import DensityData
from registry.errors import ConfigurationError

__all__ = [
    "Miller",
    "PlaneFrame",
    "fourier_magnitude",
    "index_slice",
    "metric_slice",
    "plane_frame",
    "plane_points",
]

Miller = tuple[int, int, int]

_PARALLEL = 0.1


@dataclass(frozen=True, eq=False)
class PlaneFrame:
    """A plane in space: a point of it, two axes in it, the normal. Unit vectors, shape (3,)."""

    origin: NDArray[np.float64]
    """Cartesian position of the middle of the window [Å]."""
    horizontal: NDArray[np.float64]
    vertical: NDArray[np.float64]
    normal: NDArray[np.float64]

    def moved(self, *, turn: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)) -> PlaneFrame:
        """Another window of the same plane: the same field, seen elsewhere.

        Parameters
        ----------
        turn
            Of the window in its plane, about its middle [degrees].
        shift
            Of the window's middle along the horizontal and the vertical axis as they were [Å].
        """
        cosine, sine = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
        return PlaneFrame(
            origin=self.origin + shift[0] * self.horizontal + shift[1] * self.vertical,
            horizontal=cosine * self.horizontal + sine * self.vertical,
            vertical=cosine * self.vertical - sine * self.horizontal,
            normal=self.normal,
        )


def index_slice(
    values: NDArray[np.floating], *, start: int = 25, stop: int = 211, repeats: int = 8
) -> NDArray[np.float64]:
    """The published slice: a (111) plane in grid indices of the primitive cell.

    ``image[i, j] = values[i % n, j % n, (repeats * n - i - j) % n]`` for i, j in
    ``range(start, stop)``, which is what a plane x + y + z = ``repeats * n`` through
    ``np.tile(values, 3 * (repeats,))`` holds (arXiv:2401.09301; ``repeats`` 8, n 60, 186 x 186).
    In primitive fractional coordinates the plane is f1 + f2 + f3 = integer: it passes through the
    cell's origin, and its axes are oblique, so that lengths are lost.

    Parameters
    ----------
    values
        Shape (n, n, n), any unit.

    Returns
    -------
    ndarray
        Shape (stop - start, stop - start), the very numbers of ``values``.

    Raises
    ------
    ConfigurationError
        If the grid is not cubic.
    """
    points = values.shape[0]
    if values.shape != (points, points, points):
        raise ConfigurationError(f"a slice in grid indices needs a cubic grid, not {values.shape}")
    rows = np.arange(start, stop)
    i, j = rows[:, None], rows[None, :]
    picture: NDArray[np.float64] = values[i % points, j % points, (repeats * points - i - j) % points]
    return picture


def plane_frame(setting: Setting, miller: Miller, *, offset: float = 0.0) -> PlaneFrame:
    """The plane (hkl) of the conventional cell, its window's middle and axes.

    The normal is h a* + k b* + l c*. The vertical axis is the part of c that lies in the plane,
    or of b, or of a, the first that keeps at least a tenth of its length; the horizontal axis is
    vertical x normal (mirrored for left-handed axes, so that mirror images of a crystal give the
    same picture). For (1-10) of a cubic crystal: vertical [001], horizontal [110]; for (111):
    vertical [-1 -1 2], horizontal [-1 1 0].

    Parameters
    ----------
    setting
        Origin and conventional axes [Å].
    miller
        Indices (h, k, l), not all zero.
    offset
        Distance of the plane from the origin, in spacings d(hkl) of the conventional cell: the
        plane is h x + k y + l z = ``offset`` in conventional coordinates from the origin.

    Raises
    ------
    ConfigurationError
        If h = k = l = 0.
    """
    if not any(miller):
        raise ConfigurationError("a plane needs Miller indices other than (0, 0, 0)")
    reciprocal = np.linalg.inv(setting.axes).T  # rows a*, b*, c* without 2 pi
    gradient = np.asarray(miller, dtype=np.float64) @ reciprocal
    normal = gradient / np.linalg.norm(gradient)
    in_plane = [axis - (axis @ normal) * normal for axis in setting.axes[::-1]]
    vertical = next(
        part
        for part, axis in zip(in_plane, setting.axes[::-1], strict=True)
        if np.linalg.norm(part) >= _PARALLEL * np.linalg.norm(axis)
    )
    vertical = vertical / np.linalg.norm(vertical)
    handedness = np.sign(np.linalg.det(setting.axes))
    return PlaneFrame(
        origin=setting.origin + offset / np.linalg.norm(gradient) * normal,
        horizontal=handedness * np.cross(vertical, normal),
        vertical=vertical,
        normal=normal,
    )


def plane_points(frame: PlaneFrame, *, window: tuple[float, float], pixels: tuple[int, int]) -> NDArray[np.float64]:
    """Where the pixels' centres lie in space.

    Pixel (row i, column j) has its centre at ``x = (j + 1/2) window[0] / pixels[1] - window[0] / 2``
    along the horizontal axis and ``y = window[1] / 2 - (i + 1/2) window[1] / pixels[0]`` along the
    vertical one: row 0 is the top, the frame's origin is the middle of the picture, which for an
    even number of pixels is the corner that the four middle ones share.

    Parameters
    ----------
    window
        Width and height [Å].
    pixels
        Height and width.

    Returns
    -------
    ndarray
        Shape (height, width, 3), Cartesian [Å].
    """
    height, width = pixels
    x = ((np.arange(width) + 0.5) / width - 0.5) * window[0]
    y = (0.5 - (np.arange(height) + 0.5) / height) * window[1]
    points: NDArray[np.float64] = frame.origin + x[None, :, None] * frame.horizontal + y[:, None, None] * frame.vertical
    return points


def metric_slice(
    density: DensityData, fractional: NDArray[np.float64], *, spline_order: int = 3
) -> NDArray[np.float64]:
    """The density at fractional points, by a periodic B-spline through its native grid.

    ``scipy.ndimage.map_coordinates(mode="grid-wrap")``, whose result equals that of a tiled
    supercell; the spline passes through every grid value.

    Parameters
    ----------
    density
        Values [e/Å^3] on any grid.
    fractional
        Shape (..., 3), in the density's own cell; any cell of the crystal.

    Returns
    -------
    ndarray
        Shape (...) [e/Å^3].
    """
    from scipy.ndimage import map_coordinates, spline_filter

    values = np.asarray(density.values, dtype=np.float64)
    if spline_order > 1:
        values = spline_filter(values, order=spline_order, mode="grid-wrap")
    coordinates = np.moveaxis((fractional - np.floor(fractional)) * values.shape, -1, 0)
    picture: NDArray[np.float64] = map_coordinates(
        values, coordinates, order=spline_order, mode="grid-wrap", prefilter=False
    )
    return picture


def fourier_magnitude(pixels: NDArray[np.floating]) -> NDArray[np.float32]:
    """``log(1 + |F|)`` of the 2-D Fourier transform of each channel, zero frequency in the middle.

    Parameters
    ----------
    pixels
        Shape (C, H, W).

    Returns
    -------
    ndarray
        Shape (C, H, W), float32, no unit.
    """
    spectrum = np.fft.fftshift(np.fft.fft2(np.asarray(pixels, dtype=np.float64)), axes=(-2, -1))
    return np.log1p(np.abs(spectrum)).astype(np.float32)
