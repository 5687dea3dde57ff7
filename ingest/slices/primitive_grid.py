"""Density on a grid of the primitive cell, of which the published slice is taken."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ingest.densities.regridding import regrid
from ingest.slices.space_groups import SYMPREC
from ingest.slices.symmetry import primitive_in_stored
from registry.crystals import DensityData
from registry.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["regrid_primitive"]


def regrid_primitive(
    density: DensityData, structure: Structure, *, points: int = 60, symprec: float = SYMPREC
) -> DensityData:
    """Density of the primitive cell on ``points`` x ``points`` x ``points`` [e/Å^3].

    A primitive cell is used as stored, with its origin. For an F-centred cubic crystal the
    primitive cell is always the rhombohedral one with angles of 60 degrees. From a conventional cell
    with vectors A, B, C it is (B+C)/2, (C+A)/2, (A+B)/2, so that
    ``prim[i, j, k] = conv[(j + k) % 2n, (i + k) % 2n, (i + j) % 2n]`` on a conventional grid of
    (2n)^3, to which :func:`~ingest.densities.regridding.regrid` interpolates first: the only
    interpolation is the Fourier one.

    Parameters
    ----------
    density
        Values on the grid of the stored cell [e/Å^3].
    structure
        The stored cell [Å].
    points
        Number of grid points along each vector of the primitive cell.
    symprec
        Tolerance of spglib [Å].

    Returns
    -------
    DensityData
        Values of shape (points, points, points) [e/Å^3] with the primitive lattice [Å].

    Raises
    ------
    InputError
        If the stored cell is not a simple multiple of the primitive one, or spglib finds no
        symmetry.
    """
    vectors = primitive_in_stored(structure, symprec=symprec)  # rows, in units of the stored vectors
    if np.array_equal(vectors, np.eye(3)):
        return regrid(density, (points, points, points))
    for parts in range(1, 5):
        steps = np.rint(vectors * parts)
        # Cells are multiples of each other within spglib's tolerance.
        if np.allclose(vectors * parts, steps, atol=0.02):
            break
    else:
        raise InputError(
            f"the cell of {structure.composition.reduced_formula} ({len(structure)} atoms) is not a simple multiple of "
            "its primitive cell; store the density in the primitive or the conventional cell"
        )
    fine = regrid(density, (points * parts,) * 3).values
    index = np.stack(np.meshgrid(*[np.arange(points)] * 3, indexing="ij"), axis=-1) @ steps.astype(np.int64)
    index %= points * parts
    values = fine[index[..., 0], index[..., 1], index[..., 2]]
    return replace(density, values=values, lattice=(steps / parts) @ np.asarray(density.lattice, dtype=np.float64))
