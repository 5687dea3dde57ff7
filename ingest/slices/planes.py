"""Planes through a periodic density as arrays of pixels.

:func:`index_slice` is a lookup in grid indices; :func:`metric_slice` evaluates a periodic spline
through the native grid on a plane with orthonormal axes in Å. Neither builds a supercell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.slices.symmetry import ConventionalFrame
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
    """A plane in space: origin, two axes in the plane and the normal, unit vectors of shape (3,)."""

    origin: NDArray[np.float64]
    """Cartesian position of the centre of the window [Å]."""
    horizontal: NDArray[np.float64]
    vertical: NDArray[np.float64]
    normal: NDArray[np.float64]

    def moved(self, *, rotation: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)) -> PlaneFrame:
        """Another window of the same plane.

        Parameters
        ----------
        rotation
            Rotation of the window in its plane about its centre [degrees].
        shift
            Shift of the window's centre along the original horizontal and vertical axes [Å].
        """
        cosine, sine = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
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
    ``range(start, stop)``: the plane x + y + z = ``repeats * n`` through
    ``np.tile(values, 3 * (repeats,))`` (arXiv:2401.09301; ``repeats`` 8, n 60, 186 x 186).
    In primitive fractional coordinates the plane is f1 + f2 + f3 = integer: it passes through the
    cell's origin, and its axes are oblique, so that lengths are lost.

    Parameters
    ----------
    values
        Shape (n, n, n), any unit.
    start, stop
        Range of grid indices along both axes of the image.
    repeats
        Size of the supercell in primitive cells.

    Returns
    -------
    ndarray
        Shape (stop - start, stop - start), with values of ``values`` that are not interpolated.

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
    image: NDArray[np.float64] = values[i % points, j % points, (repeats * points - i - j) % points]
    return image


def plane_frame(crystal: ConventionalFrame, miller: Miller, *, offset: float = 0.0) -> PlaneFrame:
    """Plane (hkl) of the conventional cell: centre and axes of its window.

    The normal is h a* + k b* + l c*. The vertical axis is the projection of c onto the plane,
    or of b, or of a: the first that keeps at least a tenth of its length. The horizontal axis is
    vertical x normal (mirrored for left-handed axes, so that mirror images of a crystal give the
    same image). For (1-10) of a cubic crystal: vertical [001], horizontal [110]; for (111):
    vertical [-1 -1 2], horizontal [-1 1 0].

    Parameters
    ----------
    crystal
        Origin and conventional axes [Å].
    miller
        Indices (h, k, l), not all zero.
    offset
        Distance of the plane from the origin, in units of the spacing d(hkl) of the conventional
        cell: the plane is h x + k y + l z = ``offset`` in conventional coordinates from the origin.

    Raises
    ------
    ConfigurationError
        If h = k = l = 0.
    """
    if not any(miller):
        raise ConfigurationError("a plane needs Miller indices other than (0, 0, 0)")
    reciprocal = np.linalg.inv(crystal.axes).T  # rows a*, b*, c* without 2 pi
    gradient = np.asarray(miller, dtype=np.float64) @ reciprocal
    normal = gradient / np.linalg.norm(gradient)
    in_plane = [axis - (axis @ normal) * normal for axis in crystal.axes[::-1]]
    vertical = next(
        part
        for part, axis in zip(in_plane, crystal.axes[::-1], strict=True)
        if np.linalg.norm(part) >= _PARALLEL * np.linalg.norm(axis)
    )
    vertical = vertical / np.linalg.norm(vertical)
    handedness = np.sign(np.linalg.det(crystal.axes))
    return PlaneFrame(
        origin=crystal.origin + offset / np.linalg.norm(gradient) * normal,
        horizontal=handedness * np.cross(vertical, normal),
        vertical=vertical,
        normal=normal,
    )


def plane_points(frame: PlaneFrame, *, window: tuple[float, float], pixels: tuple[int, int]) -> NDArray[np.float64]:
    """Cartesian positions of the centres of the pixels.

    Pixel (row i, column j) has its centre at ``x = (j + 1/2) window[0] / pixels[1] - window[0] / 2``
    along the horizontal axis and ``y = window[1] / 2 - (i + 1/2) window[1] / pixels[0]`` along the
    vertical one: row 0 is the top. The frame's origin is the centre of the image, which for an even
    number of pixels is the common corner of the four central pixels.

    Parameters
    ----------
    frame
        Plane and centre of the window.
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
    """Values of a density at fractional points, by a periodic B-spline through its native grid.

    The result of ``scipy.ndimage.map_coordinates(mode="grid-wrap")`` equals that of a tiled
    supercell; the spline passes through every grid value.

    Parameters
    ----------
    density
        Values [e/Å^3] on any grid.
    fractional
        Shape (..., 3), in the density's own cell; values outside [0, 1) are periodic images.
    spline_order
        Order of the spline, 0 to 5.

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
    image: NDArray[np.float64] = map_coordinates(
        values, coordinates, order=spline_order, mode="grid-wrap", prefilter=False
    )
    return image


def fourier_magnitude(pixels: NDArray[np.floating]) -> NDArray[np.float32]:
    """``log(1 + |F|)`` of the 2-D Fourier transform of each channel, zero frequency in the centre.

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
