"""Origin and conventional axes of a crystal, independent of the stored cell.

spglib's standard cells are not unique: origin, equivalent axes and mirror images are free. A slice
must not depend on that choice, so :func:`conventional_frame` selects among all of them by the
arrangement of the atoms.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ingest.slices.space_groups import SYMPREC
from registry.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["ConventionalFrame", "conventional_frame", "primitive_in_stored"]

# Primitive vectors of an F-centred cell in units of the conventional ones.
_FACE_CENTRED = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])

# Direction t along a, b, c. Any generic numbers serve: different arrangements get different scores.
_DIRECTION = np.array([0.31, 0.53, 0.83])


_METRIC_TOLERANCE = 1e-3  # relative, of lengths and of products of lattice vectors


@dataclass(frozen=True, eq=False)
class ConventionalFrame:
    """Origin and conventional axes of a crystal, in the Cartesian space of the stored structure."""

    origin: NDArray[np.float64]
    """Shape (3,), Cartesian position of the central atom [Å]."""
    axes: NDArray[np.float64]
    """Shape (3, 3), conventional lattice vectors as rows [Å]; right- or left-handed."""


def conventional_frame(structure: Structure, *, symprec: float = SYMPREC) -> ConventionalFrame:
    """Origin and conventional axes that depend on the crystal and not on its file.

    The axes are those of spglib's standard conventional cell (International Tables), rotated back
    into the structure's own orientation. The origin is the atom of the highest site symmetry
    (order of its point group), among these the one of the highest atomic number. The remaining
    candidates are the axes that are equivalent by the symmetry of the lattice and the point group
    (for a cubic crystal 48, mirror images included) and, rarely, several kinds of such atoms. Of
    these the frame with the highest score is selected: the sum over neighbours of
    ``Z exp(-r^2 / 2 s^2) exp(t.x / s)``, with x the coordinates along the unit axes, s half the cube
    root of the conventional cell's volume, t = (0.31, 0.53, 0.83). Frames of equal score are
    equivalent by symmetry, so that the selection is unique; it depends on neither the stored
    origin, nor the cell, nor the order of atoms or vectors. For triclinic and monoclinic crystals
    it is as unique as the axes of spglib's standard cell.

    Parameters
    ----------
    structure
        Ordered structure in any cell.
    symprec
        Tolerance on positions [Å].

    Raises
    ------
    InputError
        If spglib finds no space group.
    """
    lattice, positions, numbers = _primitive_cell(structure, symprec)
    dataset = _dataset(lattice, positions, numbers, symprec, structure)
    to_standard = np.asarray(dataset.transformation_matrix, dtype=np.float64)
    axes = np.linalg.inv(to_standard).T @ lattice

    orbits = np.asarray(dataset.crystallographic_orbits)
    # Orbit-stabiliser theorem: the smallest orbit has the highest site symmetry.
    sizes = {orbit: int((orbits == orbit).sum()) for orbit in set(orbits.tolist())}
    best = min((sizes[orbit], -int(numbers[orbit])) for orbit in sizes)
    centres = [orbit for orbit in sorted(sizes) if (sizes[orbit], -int(numbers[orbit])) == best]

    scale = 0.5 * abs(np.linalg.det(axes)) ** (1 / 3)
    candidates = _equivalent_axes(axes, to_standard, np.asarray(dataset.rotations))  # m x 3 x 3
    directions = candidates / np.linalg.norm(candidates, axis=2, keepdims=True)
    winner: tuple[float, int, int] | None = None
    for centre in centres:
        vectors, weights = _neighbours(lattice, positions, numbers, centre, scale)
        exponents = np.einsum("mkx,nx,k->mn", directions, vectors / scale, _DIRECTION)
        scores = np.exp(exponents) @ weights
        choice = int(np.argmax(scores))
        if winner is None or scores[choice] > winner[0]:
            winner = (float(scores[choice]), centre, choice)
    if winner is None:
        raise InputError("a structure without atoms has no conventional frame")
    _, centre, choice = winner
    return ConventionalFrame(origin=positions[centre] @ lattice, axes=candidates[choice])


def primitive_in_stored(structure: Structure, *, symprec: float = SYMPREC) -> NDArray[np.float64]:
    """Primitive lattice vectors in units of the stored ones, as rows, shape (3, 3).

    The unit matrix if the stored cell is primitive (for an F-centred cubic crystal only if its
    angles are also 60 degrees). Otherwise, for F-centred crystals, the half sums of the conventional
    vectors that spglib finds; for others spglib's reduced primitive cell.

    Raises
    ------
    InputError
        If spglib finds no space group.
    """
    lattice = np.asarray(structure.lattice.matrix, dtype=np.float64)
    numbers = np.array([site.specie.Z for site in structure])
    dataset = _dataset(lattice, structure.frac_coords, numbers, symprec, structure)
    ratio = abs(np.linalg.det(lattice) / np.linalg.det(dataset.primitive_lattice))
    is_primitive = round(ratio) == 1
    face_centred = str(dataset.international).startswith("F")
    cubic = dataset.number >= 195
    if is_primitive and not (face_centred and cubic and not np.allclose(structure.lattice.angles, 60.0, atol=0.5)):
        return np.eye(3)
    if face_centred:
        conventional = np.linalg.inv(np.asarray(dataset.transformation_matrix, dtype=np.float64)).T
        return np.asarray(_FACE_CENTRED @ conventional, dtype=np.float64)
    return np.asarray(dataset.primitive_lattice @ np.linalg.inv(lattice), dtype=np.float64)


def _dataset(
    lattice: NDArray[np.float64],
    positions: NDArray[np.float64],
    numbers: NDArray[np.int64],
    symprec: float,
    structure: Structure,
) -> Any:
    dataset = _cached_dataset(
        tuple(map(tuple, lattice.tolist())), tuple(map(tuple, positions.tolist())), tuple(numbers.tolist()), symprec
    )
    if dataset is None:
        raise InputError(
            f"spglib finds no space group of {structure.composition.reduced_formula} within {symprec} Å; "
            "are two atoms too close?"
        )
    return dataset


# spglib takes 10 to 40 ms, and each recipe of a crystal needs the same cell.
@lru_cache(maxsize=8)
def _cached_dataset(
    lattice: tuple[tuple[float, ...], ...],
    positions: tuple[tuple[float, ...], ...],
    numbers: tuple[int, ...],
    symprec: float,
) -> Any:
    import spglib

    with warnings.catch_warnings():
        # spglib reports a failure as None or as an error, depending on its version; both become None.
        warnings.filterwarnings("ignore", message=".*OLD_ERROR_HANDLING", category=DeprecationWarning)
        try:
            return spglib.get_symmetry_dataset((lattice, positions, numbers), symprec=symprec)
        except spglib.SpglibError:
            return None


def _primitive_cell(
    structure: Structure, symprec: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Primitive lattice (rows, Å), fractional positions and atomic numbers, in the stored space and origin."""
    stored = np.asarray(structure.lattice.matrix, dtype=np.float64)
    numbers = np.array([site.specie.Z for site in structure], dtype=np.int64)
    positions = np.asarray(structure.frac_coords, dtype=np.float64)
    dataset = _dataset(stored, positions, numbers, symprec, structure)
    _, first = np.unique(np.asarray(dataset.mapping_to_primitive), return_index=True)
    if len(first) == len(numbers):
        return stored, positions - np.floor(positions), numbers
    lattice = np.asarray(dataset.primitive_lattice, dtype=np.float64)
    positions = positions[first] @ stored @ np.linalg.inv(lattice)
    return lattice, positions - np.floor(positions), numbers[first]


def _equivalent_axes(
    axes: NDArray[np.float64], to_standard: NDArray[np.float64], rotations: NDArray[np.int_]
) -> NDArray[np.float64]:
    """Axes equivalent to the given ones by the lattice symmetry that leave the point group unchanged; (m, 3, 3)."""
    metric = axes @ axes.T
    lengths = np.sqrt(np.diag(metric))
    steps = np.array([step for step in product((-1, 0, 1), repeat=3) if any(step)])
    products = steps @ metric @ steps.T
    near = [np.flatnonzero(np.abs(np.sqrt(np.diag(products)) / length - 1) < _METRIC_TOLERANCE) for length in lengths]
    triples = np.stack(np.meshgrid(*near, indexing="ij"), axis=-1).reshape(-1, 3)
    metrics = products[triples[:, :, None], triples[:, None, :]]  # n x 3 x 3, of the new vectors
    same = (np.abs(metrics - metric) / np.outer(lengths, lengths)).max(axis=(1, 2)) < 2 * _METRIC_TOLERANCE
    images = steps[triples[same]].transpose(0, 2, 1)  # columns: the images of a, b, c

    group = np.unique(
        np.rint(to_standard @ rotations @ np.linalg.inv(to_standard)).astype(np.int64).reshape(-1, 9), axis=0
    ).reshape(-1, 3, 3)
    inverses = np.rint(np.linalg.inv(images)).astype(np.int64)
    conjugated = images[:, None] @ group[None] @ inverses[:, None]
    keeps = np.isin(_codes(conjugated), _codes(group)).all(axis=1)
    choices: NDArray[np.float64] = images[keeps].transpose(0, 2, 1) @ axes
    return choices


def _codes(matrices: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number for each integer matrix (..., 3, 3) with small entries."""
    codes: NDArray[np.int64] = matrices.reshape(*matrices.shape[:-2], 9) @ (101 ** np.arange(9))
    return codes


def _neighbours(
    lattice: NDArray[np.float64],
    positions: NDArray[np.float64],
    numbers: NDArray[np.int_],
    centre: int,
    scale: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vectors (n, 3) [Å] from one atom to its neighbours, and their weights (n,)."""
    cutoff = 5.0 * scale
    # Number of cells within the sphere along each vector: cutoff over the spacing of its planes.
    cells = np.ceil(cutoff * np.linalg.norm(np.linalg.inv(lattice), axis=0)).astype(int) + 1
    shifts = np.array(list(product(*[range(-count, count + 1) for count in cells])))
    vectors = ((positions - positions[centre])[None, :, :] + shifts[:, None, :]).reshape(-1, 3) @ lattice
    squares = np.einsum("nx,nx->n", vectors, vectors)
    inside = squares <= cutoff**2 * (1 + 1e-6)  # keeps shells of equal distances complete
    weights = np.tile(numbers, len(shifts))[inside] * np.exp(-squares[inside] / (2 * scale**2))
    return vectors[inside], weights
