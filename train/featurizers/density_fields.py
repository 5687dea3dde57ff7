"""Fields on a periodic grid in reciprocal space: derivatives, averages over spheres, integrals over balls.

A field on a grid is a finite sum of plane waves. All operations are exact for that sum, for any shape of the cell, and
independent of the origin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Waves", "lda_potential"]

_BOHR = 0.529177210903
"""Bohr radius [Å] (CODATA 2018)."""
_HARTREE = 27.211386245988
"""Hartree energy [eV] (CODATA 2018)."""


class Waves:
    """Plane waves of a grid.

    Parameters
    ----------
    shape
        Points (n1, n2, n3) along the lattice vectors.
    lattice
        (3, 3), lattice vectors as rows [Å].
    """

    def __init__(self, shape: tuple[int, ...], lattice: NDArray[np.float64]) -> None:
        self.shape = tuple(shape)
        self._indices = [np.fft.fftfreq(n, 1 / n) for n in self.shape]
        reciprocal = 2 * np.pi * np.linalg.inv(np.asarray(lattice, dtype=np.float64)).T
        a, b, c = np.meshgrid(*self._indices, indexing="ij")
        self._vectors = a[..., None] * reciprocal[0] + b[..., None] * reciprocal[1] + c[..., None] * reciprocal[2]
        self._lengths = np.linalg.norm(self._vectors, axis=-1)
        # The Nyquist wave of an even number of points has no defined derivative, because its sign is not determined.
        self._highest = np.zeros(self.shape, dtype=bool)
        for axis, n in enumerate(self.shape):
            if n % 2 == 0:
                self._highest[(slice(None),) * axis + (n // 2,)] = True

    def coefficients(self, values: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Amplitudes of the waves, in the unit of the field."""
        return np.asarray(np.fft.fftn(values) / values.size)

    def gradient(self, coefficients: NDArray[np.complex128]) -> NDArray[np.float64]:
        """Length of the gradient at the grid points [unit/Å]."""
        kept = np.where(self._highest, 0, coefficients) * self._highest.size
        squares = [np.fft.ifftn(1j * self._vectors[..., i] * kept).real ** 2 for i in range(3)]
        return np.asarray(np.sqrt(squares[0] + squares[1] + squares[2]))

    def laplacian(self, coefficients: NDArray[np.complex128]) -> NDArray[np.float64]:
        """Laplacian at the grid points [unit/Å^2]."""
        kept = np.where(self._highest, 0, coefficients) * self._highest.size
        return np.asarray(np.fft.ifftn(-(self._lengths**2) * kept).real)

    def around(self, coefficients: NDArray[np.complex128], position: ArrayLike) -> NDArray[np.float64]:
        """Real parts of the waves at a point, of which the sum is the field at the point.

        Parameters
        ----------
        coefficients
            From :meth:`coefficients`.
        position
            (3,), fractional coordinates.
        """
        x = np.asarray(position, dtype=np.float64)
        a, b, c = (np.exp(2j * np.pi * self._indices[i] * x[i]) for i in range(3))
        return np.asarray((coefficients * (a[:, None, None] * b[None, :, None] * c[None, None, :])).real)

    def sphere(self, radius: float) -> NDArray[np.float64]:
        """Factor of each wave in the average over a sphere of this radius [Å]: sin(Gr) / Gr."""
        return np.asarray(np.sinc(self._lengths * radius / np.pi))

    def ball(self, radius: float) -> NDArray[np.float64]:
        """Factor of each wave in the integral over a ball of this radius [Å]: 4π (sin Gr - Gr cos Gr) / G^3 [Å^3]."""
        x = self._lengths * radius
        small = x < 1e-3
        x = np.where(small, 1.0, x)
        shape = np.where(small, 1 / 3, (np.sin(x) - x * np.cos(x)) / x**3)
        return np.asarray(4 * np.pi * radius**3 * shape)


def lda_potential(density: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exchange and correlation potentials of the local density approximation, without spin.

    The correlation is that of J. P. Perdew, Y. Wang, Physical Review B 45, 13244 (1992).

    Parameters
    ----------
    density
        Density of any shape [e/Å^3]; values below 1e-6 are replaced by it.

    Returns
    -------
    exchange, correlation
        Potentials of the same shape [eV].
    """
    n = np.maximum(density, 1e-6) * _BOHR**3
    rs = (3 / (4 * np.pi * n)) ** (1 / 3)
    exchange = -((3 * n / np.pi) ** (1 / 3))
    a, alpha, b1, b2, b3, b4 = 0.031091, 0.21370, 7.5957, 3.5876, 1.6382, 0.49294
    root = np.sqrt(rs)
    q = 2 * a * (b1 * root + b2 * rs + b3 * rs * root + b4 * rs**2)
    logarithm = np.log1p(1 / q)
    energy = -2 * a * (1 + alpha * rs) * logarithm
    slope_of_q = a * (b1 / root + 2 * b2 + 3 * b3 * root + 4 * b4 * rs)
    slope = -2 * a * alpha * logarithm + 2 * a * (1 + alpha * rs) * slope_of_q / (q**2 + q)
    return _HARTREE * exchange, _HARTREE * (energy - rs / 3 * slope)
