"""Statistics of a density at the atoms of a crystal and along its bonds.

All statistics are averages over the cell, its atoms or its bonds, so that they are equal for the primitive cell and for
supercells, and independent of the origin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.featurizers.density_fields import Waves

__all__ = ["BOND_PARAMETERS", "Surroundings", "bond_statistics", "site_statistics", "spread", "surroundings"]

_REACH = 6.0
"""Largest distance of atoms from the cell that are neighbours of its points [Å]."""
_SHARERS = 8
"""Largest number of atoms that share a point."""
_SHARING = 0.5
"""Scale s of the shares, which decrease as exp(-(d^2 - d_nearest^2) / s) [Å^2]."""

_SPHERES = (0.0, 0.4, 0.7, 1.0, 1.2, 1.4, 1.7, 2.0)
"""Radii of the averages around an atom [Å]."""
_BALLS = (0.8, 1.0, 1.2, 1.4)
"""Radii of the integrals around an atom [Å]."""

_BOND = 1.2
"""Largest length of a bond, relative to the shortest bond of the atom."""
_SHORTEST = 1.05
"""Largest relative length of a bond that counts as one of the shortest."""
_CANDIDATES = 40
"""Number of nearest atoms that are considered for bonds."""
_STEPS = 41
"""Number of points on the line of a bond."""
_ENDS = 8
"""Number of points at each end of the line that are excluded from the search for the minimum."""

BOND_PARAMETERS = {
    "reach": _REACH, "sharers": _SHARERS, "sharing": _SHARING, "spheres": list(_SPHERES), "balls": list(_BALLS),
    "bond": _BOND, "shortest": _SHORTEST, "steps": _STEPS, "ends": _ENDS,
}  # fmt: skip
"""Parameters of the statistics [Å, Å^2]."""

_LEAST = 1e-3
"""Lower limit of densities in ratios and logarithms [e/Å^3]."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The atoms of a crystal around the points of a grid; N atoms, P points."""

    fractional: NDArray[np.float64]
    """(N, 3), the atoms in the cell, each coordinate in [0, 1)."""
    images: NDArray[np.float64]
    """(M, 3), the atoms in the cell and around it [Å]."""
    nearest: NDArray[np.float64]
    """(P,), distance of each point to the nearest atom [Å]."""
    gap: NDArray[np.float64]
    """(P,), distance to the second nearest atom minus that to the nearest [Å]."""
    shares: NDArray[np.float64]
    """(N, P), share of each point that belongs to each atom (Voronoi cells with soft faces); sums to 1 over atoms."""


def surroundings(shape: tuple[int, ...], lattice: NDArray[np.float64], fractional: NDArray[np.float64]) -> Surroundings:
    """Find the atoms around the points of a grid.

    Parameters
    ----------
    shape
        Points (n1, n2, n3) along the lattice vectors.
    lattice
        (3, 3), lattice vectors as rows [Å].
    fractional
        (N, 3), positions of the atoms.
    """
    from scipy.spatial import cKDTree

    atoms = fractional % 1.0
    volume = abs(np.linalg.det(lattice))
    crosses = [np.linalg.norm(np.cross(lattice[(i + 1) % 3], lattice[(i + 2) % 3])) for i in range(3)]
    cells = [int(np.ceil(_REACH * cross / volume)) for cross in crosses]
    shifts = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in cells], indexing="ij"), -1).reshape(-1, 3)
    images = np.concatenate([(shifts + atom) @ lattice for atom in atoms])
    owner = np.repeat(np.arange(len(atoms)), len(shifts))
    axes = [np.arange(n) / n for n in shape]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3) @ lattice
    distances, which = cKDTree(images).query(points, k=_SHARERS)
    weights = np.exp(-(distances**2 - distances[:, :1] ** 2) / _SHARING)
    weights /= weights.sum(axis=1, keepdims=True)
    shares = np.zeros((len(atoms), len(points)))
    np.add.at(shares, (owner[which], np.arange(len(points))[:, None]), weights)
    return Surroundings(atoms, images, distances[:, 0], distances[:, 1] - distances[:, 0], shares)


def spread(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    """Mean, standard deviation, minimum and maximum of values (N,), in their unit, named after ``name``."""
    return {
        f"{name} mean": float(np.mean(values)),
        f"{name} std": float(np.std(values)),
        f"{name} min": float(np.min(values)),
        f"{name} max": float(np.max(values)),
    }


def site_statistics(
    total: NDArray[np.float64],
    deformation: NDArray[np.float64],
    *,
    waves: Waves,
    around: Surroundings,
    volume: float,
) -> dict[str, float]:
    """Statistics over atoms: charges, electrons, volumes, averages over spheres and integrals over balls.

    The charge is the deformation density in an atom's Voronoi cell (C. Fonseca Guerra et al., Journal of
    Computational Chemistry 25, 189 (2004)), here with soft faces.

    Parameters
    ----------
    total, deformation
        (n1, n2, n3) [e/Å^3].
    waves
        Plane waves of their grid.
    around
        Surroundings of their grid.
    volume
        Volume of the cell [Å^3].
    """
    step = volume / total.size
    transferred = around.shares @ deformation.ravel() * step
    found = {
        **spread("sites transferred", transferred),
        **spread("sites volume", around.shares.sum(axis=1) * step),
        **spread("sites electrons", around.shares @ total.ravel() * step),
        "sites transferred size": float(np.abs(transferred).mean()),
    }
    coefficients = {"total": waves.coefficients(total), "deformation": waves.coefficients(deformation)}
    at_atoms = {
        kind: [waves.around(values, atom).ravel() for atom in around.fractional]
        for kind, values in coefficients.items()
    }
    for radius in _SPHERES:
        factor = waves.sphere(radius).ravel()
        for kind, amplitudes in at_atoms.items():
            found |= spread(f"sites {kind} at {radius} Å", np.array([a @ factor for a in amplitudes]))
    for radius in _BALLS:
        factor = waves.ball(radius).ravel()
        for kind, amplitudes in at_atoms.items():
            found |= spread(f"sites {kind} within {radius} Å", np.array([a @ factor for a in amplitudes]))
    return found


def bond_statistics(
    total: NDArray[np.float64],
    deformation: NDArray[np.float64],
    *,
    lattice: NDArray[np.float64],
    around: Surroundings,
) -> dict[str, float]:
    """Statistics of the density along the lines between neighbours, in particular of its minimum.

    Parameters
    ----------
    total, deformation
        (n1, n2, n3) [e/Å^3].
    lattice
        (3, 3), lattice vectors as rows [Å].
    around
        Surroundings of their grid.
    """
    from scipy.ndimage import map_coordinates, spline_filter

    starts, ends, lengths, shortest = _bonds(lattice, around)
    along = np.linspace(0, 1, _STEPS)[:, None, None]
    lines = (starts + along * (ends - starts)) @ np.linalg.inv(lattice)  # (steps, bonds, 3), fractional
    where = np.moveaxis(lines % 1.0 * np.array(total.shape), -1, 0)
    line, change = (
        map_coordinates(spline_filter(field, order=3, mode="grid-wrap"), where, order=3, mode="grid-wrap",
                        prefilter=False)
        for field in (total, deformation)
    )  # fmt: skip
    lowest = _ENDS + np.argmin(line[_ENDS : _STEPS - _ENDS], axis=0)
    bonds = np.arange(line.shape[1])
    least, moved = line[lowest, bonds], change[lowest, bonds]
    near = 2 * lengths / (_STEPS - 1)
    curvature = (line[lowest + 2, bonds] + line[lowest - 2, bonds] - 2 * least) / near**2
    atoms = len(around.fractional)
    return {
        **spread("bonds minimum", least),
        **spread("bonds deformation", moved),
        **spread("bonds length", lengths),
        **spread("bonds middle", line[_STEPS // 2]),
        **spread("bonds curvature", curvature),
        **spread("bonds gain", least / np.maximum(least - moved, _LEAST)),
        **spread("bonds shortest minimum", least[shortest]),
        **spread("bonds shortest deformation", moved[shortest]),
        "bonds per atom": len(bonds) / atoms,
        "bonds shortest per atom": float(shortest.sum()) / atoms,
        "bonds minimum log": float(np.log(max(least.mean(), _LEAST))),
        "bonds minimum root": float(np.cbrt(max(least.mean(), 0.0))),
        "bonds minimum per volume": float(least.sum() / abs(np.linalg.det(lattice))),
    }


def _bonds(
    lattice: NDArray[np.float64], around: Surroundings
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Ends of all bonds of the atoms in the cell, (B, 3) each [Å], their lengths, and a mask of the shortest bonds."""
    from scipy.spatial import cKDTree

    tree = cKDTree(around.images)
    starts, ends, lengths, shortest = [], [], [], []
    for atom in around.fractional @ lattice:
        distances, which = tree.query(atom, k=min(_CANDIDATES, len(around.images)))
        other = distances > 1e-3
        distances, which = distances[other], which[other]
        bonded = distances <= _BOND * distances[0]
        starts.append(np.repeat(atom[None], bonded.sum(), axis=0))
        ends.append(around.images[which[bonded]])
        lengths.append(distances[bonded])
        shortest.append(distances[bonded] <= _SHORTEST * distances[0])
    return np.concatenate(starts), np.concatenate(ends), np.concatenate(lengths), np.concatenate(shortest)
