"""Spherical functions on a periodic grid, computed from their Fourier coefficients.

A spherical function around an atom is one curve in reciprocal space, its form factor. Its sum over
the plane waves of a grid is periodic on that grid, and neither its integral nor its symmetry depends
on the positions of the grid points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RadialGrid", "Waves"]

_WAVE_STEP = 0.05
"""Step of tabulated form factors [1/Å]; the error of a cubic spline is 1e-6 for atoms of 16 Å."""
_BIN = 0.02
"""Step of |G| in spherical averages [1/Å]; the error of the linear interpolation is (r bin)^2 / 8."""


@dataclass(frozen=True, eq=False)
class RadialGrid:
    """Equidistant radii from the nucleus to ``radius`` [Å], with Simpson's weights."""

    r: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, radius: float, step: float) -> RadialGrid:
        """Make a grid with steps of ``step`` [Å] or slightly less."""
        parts = 2 * int(np.ceil(radius / step / 2))
        weights = np.full(parts + 1, 2.0)
        weights[1::2] = 4.0
        weights[[0, -1]] = 1.0
        return cls(np.linspace(0.0, radius, parts + 1), weights * (radius / parts / 3))

    def integral(self, values: NDArray[np.float64]) -> float:
        """Integral over r of values on the grid."""
        return float(values @ self.weights)

    def form_factor(self, values: NDArray[np.float64], waves: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fourier transform of a spherical function: the integral of 4 pi r^2 n(r) sin(q r) / (q r).

        Parameters
        ----------
        values
            4 pi r^2 n(r) on the grid [e/Å].
        waves
            Lengths q [1/Å], any shape.

        Returns
        -------
        ndarray
            Shape of ``waves`` [e].
        """
        from scipy.interpolate import CubicSpline

        table = np.arange(0.0, float(waves.max()) + 3 * _WAVE_STEP, _WAVE_STEP)
        curve = np.sinc(np.outer(table, self.r) / np.pi) @ (values * self.weights)
        factors: NDArray[np.float64] = CubicSpline(table, curve)(waves)
        return factors


@dataclass(frozen=True, eq=False)
class Waves:
    """Plane waves of a grid (for a real function: half of them), with their lengths."""

    shape: tuple[int, int, int]
    volume: float
    """Volume of the cell [Å^3]."""
    indices: tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]], NDArray[np.floating[Any]]]
    """Indices of the waves along each axis."""
    lengths: NDArray[np.float64]
    """|G| [1/Å], shape (n1, n2, n3 // 2 + 1)."""
    included: NDArray[np.bool_]
    """All waves except those at the edge, n/2 of an even n. Not only those inside a sphere: the density from which the
    function is subtracted contains the others too, and would keep them as ripples."""

    @classmethod
    def of(cls, lattice: NDArray[np.floating[Any]], shape: tuple[int, int, int]) -> Waves:
        """Make the waves of a grid with ``shape`` points along the rows of ``lattice`` [Å]."""
        matrix = np.asarray(lattice, dtype=np.float64)
        first, second = (np.fft.fftfreq(points, 1 / points) for points in shape[:2])
        third = np.fft.rfftfreq(shape[2], 1 / shape[2])
        metric = 4 * np.pi**2 * np.linalg.inv(matrix @ matrix.T)  # of reciprocal space
        a, b, c = first[:, None, None], second[None, :, None], third[None, None, :]
        squares = metric[0, 0] * a**2 + metric[1, 1] * b**2 + metric[2, 2] * c**2
        squares = squares + 2 * (metric[0, 1] * a * b + metric[0, 2] * a * c + metric[1, 2] * b * c)
        lengths = np.sqrt(np.maximum(squares, 0.0))
        included = np.ones(lengths.shape, dtype=bool)
        for axis, (points, index) in enumerate(zip(shape, (first, second, third), strict=True)):
            if points % 2 == 0:  # the two waves +-n/2 are equal on the grid; with a phase they would not be real
                included[(slice(None),) * axis + (np.abs(index) == points // 2,)] = False
        volume = float(abs(np.linalg.det(matrix)))
        return cls(shape, volume, (first, second, third), lengths, included)

    def phases(self, position: NDArray[np.float64]) -> NDArray[np.complex128]:
        """exp(-i G r) for a fractional position."""
        a, b, c = (np.exp(-2j * np.pi * index * x) for index, x in zip(self.indices, position, strict=True))
        phases: NDArray[np.complex128] = a[:, None, None] * b[None, :, None] * c[None, None, :]
        return phases

    def form_factor(self, radial: RadialGrid, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """:meth:`RadialGrid.form_factor` at all included waves, 0 at the others."""
        factors = np.zeros(self.lengths.shape)
        factors[self.included] = radial.form_factor(values, self.lengths[self.included])
        return factors

    def to_grid(self, spectrum: NDArray[np.complex128]) -> NDArray[np.float64]:
        """Transform a spectrum [e] to values on the grid [e/Å^3]."""
        values: NDArray[np.float64] = np.fft.irfftn(spectrum, s=self.shape, axes=(0, 1, 2))
        return values * (np.prod(self.shape) / self.volume)

    def to_spectrum(self, values: NDArray[np.floating[Any]]) -> NDArray[np.complex128]:
        """Transform values on the grid [e/Å^3] to a spectrum [e]."""
        spectrum: NDArray[np.complex128] = np.fft.rfftn(np.asarray(values, dtype=np.float64))
        return spectrum * (self.volume / np.prod(self.shape))

    def spherical_average(
        self, spectrum: NDArray[np.complex128], phases: NDArray[np.complex128], radii: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], float]:
        """Mean over spheres around a position, and its slope at the last radius.

        Parameters
        ----------
        spectrum
            Spectrum of the function [e].
        phases
            Phases of the position.
        radii
            Radii of the spheres [Å]; the last one is positive.

        Returns
        -------
        tuple
            Means of the shape of ``radii`` [e/Å^3], and the slope [e/Å^4].
        """
        twice = np.full(self.lengths.shape[2], 2.0)  # for the omitted half
        twice[0] = 1.0
        if self.shape[2] % 2 == 0:
            twice[-1] = 1.0
        amplitudes = ((spectrum * phases.conj()).real * twice).ravel()
        place, between = np.divmod(self.lengths.ravel() / _BIN, 1.0)
        bins = place.astype(np.int64)
        count = int(bins.max()) + 2
        summed = np.bincount(bins, amplitudes * (1 - between), count)
        summed += np.bincount(bins + 1, amplitudes * between, count)
        waves = np.arange(count) * _BIN
        means: NDArray[np.float64] = np.sinc(np.outer(radii, waves) / np.pi) @ summed / self.volume
        last = waves * radii[-1]
        slope = (np.cos(last) - np.sinc(last / np.pi)) @ summed / (self.volume * radii[-1])
        return means, float(slope)
