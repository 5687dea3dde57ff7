"""Where a crystal's axes and its centre are, whatever cell it is stored in.

spglib's standard cells leave freedom: the origin, equivalent axes, mirror images. A picture
must not depend on it, so :func:`standard_setting` chooses among all of them by what the atoms
themselves look like.
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

__all__ = ["Setting", "primitive_in_stored", "standard_setting"]

# Primitive vectors of an F-centred cell in units of the conventional ones.
_FACE_CENTRED = np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])

# Along a, b, c. Any generic numbers would do: they make every unequal arrangement score unequally.
_LEAN = np.array([0.31, 0.53, 0.83])


_METRIC_TOLERANCE = 1e-3  # of lengths, and of lattice vectors' products


@dataclass(frozen=True, eq=False)
class Setting:
    """Origin and conventional axes of a crystal, in the space of the stored structure."""

    origin: NDArray[np.float64]
    """Shape (3,), Cartesian position of the central atom [Å]."""
    axes: NDArray[np.float64]
    """Shape (3, 3), conventional lattice vectors as rows [Å]; right- or left-handed."""


def standard_setting(structure: Structure, *, symprec: float = SYMPREC) -> Setting:
    """The origin and the conventional axes that belong to the crystal and not to its file.

    The axes are those of spglib's standard conventional cell (International Tables), turned back
    into the structure's own orientation. The origin is the atom of the highest site symmetry
    (order of its point group), among those of the highest atomic number. What is left are the
    settings that the symmetry of the lattice and the point group make equivalent (for a cubic
    crystal the 48 ways to name the axes, mirror images included) and, rarely, several kinds of
    such atoms. Of these the one is taken whose surroundings lean most along +c, then +b, then +a:
    the largest sum over neighbours of ``Z exp(-r^2 / 2 s^2) exp(t.x / s)``, with x the coordinates
    along the unit axes, s half the cube root of the conventional cell's volume, t = (0.31, 0.53,
    0.83). Settings of equal sum are the same by symmetry, so that the choice is unique; it depends
    on neither the stored origin, nor the cell, nor the order of atoms or vectors. For triclinic and
    monoclinic crystals it is as unique as the axes of spglib's standard cell.

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
    # Orbit times stabiliser is the order of the point group: fewest equivalents, highest symmetry.
    sizes = {orbit: int((orbits == orbit).sum()) for orbit in set(orbits.tolist())}
    best = min((sizes[orbit], -int(numbers[orbit])) for orbit in sizes)
    centres = [orbit for orbit in sorted(sizes) if (sizes[orbit], -int(numbers[orbit])) == best]

    scale = 0.5 * abs(np.linalg.det(axes)) ** (1 / 3)
    choices = _equivalent_axes(axes, to_standard, np.asarray(dataset.rotations))  # m x 3 x 3
    directions = choices / np.linalg.norm(choices, axis=2, keepdims=True)
    winner: tuple[float, int, int] | None = None
    for centre in centres:
        vectors, weights = _surroundings(lattice, positions, numbers, centre, scale)
        lean = np.einsum("mkx,nx,k->mn", directions, vectors / scale, _LEAN)
        scores = np.exp(lean) @ weights
        choice = int(np.argmax(scores))
        if winner is None or scores[choice] > winner[0]:
            winner = (float(scores[choice]), centre, choice)
    if winner is None:
        raise InputError("a structure without atoms has no setting")
    _, centre, choice = winner
    return Setting(origin=positions[centre] @ lattice, axes=choices[choice])


def primitive_in_stored(structure: Structure, *, symprec: float = SYMPREC) -> NDArray[np.float64]:
    """Primitive lattice vectors in units of the stored ones, as rows; shape (3, 3).

    The unit matrix where the stored cell is primitive; of an F-centred cubic crystal only where
    its angles are 60 degrees as well. Otherwise, for F-centred crystals, the half sums of the
    conventional vectors that spglib finds; for others spglib's reduced primitive cell.

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


# spglib takes 10 to 40 ms, and each recipe of a crystal asks for the same cell.
@lru_cache(maxsize=8)
def _cached_dataset(
    lattice: tuple[tuple[float, ...], ...],
    positions: tuple[tuple[float, ...], ...],
    numbers: tuple[int, ...],
    symprec: float,
) -> Any:
    import spglib

    with warnings.catch_warnings():
        # Which of its two ways to fail, None or an error, spglib will keep; both end as None.
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
    """Axes that the lattice's symmetry makes of the given ones and that name the point group alike; (m, 3, 3)."""
    metric = axes @ axes.T
    lengths = np.sqrt(np.diag(metric))
    steps = np.array([step for step in product((-1, 0, 1), repeat=3) if any(step)])
    products = steps @ metric @ steps.T
    near = [np.flatnonzero(np.abs(np.sqrt(np.diag(products)) / length - 1) < _METRIC_TOLERANCE) for length in lengths]
    triples = np.stack(np.meshgrid(*near, indexing="ij"), axis=-1).reshape(-1, 3)
    metrics = products[triples[:, :, None], triples[:, None, :]]  # n x 3 x 3, of the new vectors
    same = (np.abs(metrics - metric) / np.outer(lengths, lengths)).max(axis=(1, 2)) < 2 * _METRIC_TOLERANCE
    turns = steps[triples[same]].transpose(0, 2, 1)  # columns: the images of a, b, c

    group = np.unique(
        np.rint(to_standard @ rotations @ np.linalg.inv(to_standard)).astype(np.int64).reshape(-1, 9), axis=0
    ).reshape(-1, 3, 3)
    backs = np.rint(np.linalg.inv(turns)).astype(np.int64)
    turned = turns[:, None] @ group[None] @ backs[:, None]
    keeps = np.isin(_codes(turned), _codes(group)).all(axis=1)
    choices: NDArray[np.float64] = turns[keeps].transpose(0, 2, 1) @ axes
    return choices


def _codes(matrices: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number for each integer matrix (..., 3, 3) of small entries."""
    codes: NDArray[np.int64] = matrices.reshape(*matrices.shape[:-2], 9) @ (101 ** np.arange(9))
    return codes


def _surroundings(
    lattice: NDArray[np.float64],
    positions: NDArray[np.float64],
    numbers: NDArray[np.int_],
    centre: int,
    scale: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vectors (n, 3) [Å] to all atoms around one, and their weights (n,)."""
    reach = 5.0 * scale
    # How many cells the sphere reaches across along each vector: reach over the spacing of its planes.
    cells = np.ceil(reach * np.linalg.norm(np.linalg.inv(lattice), axis=0)).astype(int) + 1
    shifts = np.array(list(product(*[range(-count, count + 1) for count in cells])))
    vectors = ((positions - positions[centre])[None, :, :] + shifts[:, None, :]).reshape(-1, 3) @ lattice
    squares = np.einsum("nx,nx->n", vectors, vectors)
    inside = squares <= reach**2 * (1 + 1e-6)  # a shell of equal distances stays whole
    weights = np.tile(numbers, len(shifts))[inside] * np.exp(-squares[inside] / (2 * scale**2))
    return vectors[inside], weights
