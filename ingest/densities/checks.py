"""Electron charge densities: whether they can be true, and on which grid.

Values are in e/Å^3 (spin: mu_B/Å^3), the grid runs along the lattice vectors of its cell
without a repeated end point: ``values[i, j, k]`` lies at the fractional point
(i/n1, j/n2, k/n3).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ingest.slices.space_groups import SYMPREC
from registry.crystals import DensityData
from registry.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = [
    "KINDS",
    "MAX_SPACING",
    "MIN_POINTS",
    "check_count",
    "check_densities",
    "check_density",
    "check_lattice",
    "regrid",
    "regrid_primitive",
    "same_crystal",
    "valence_range",
]

KINDS = ("total", "spin", "deformation")
"""Density kinds, in the order in which they are checked and written."""

MIN_POINTS = 8
"""Fewest grid points along a lattice vector."""

MAX_SPACING = 0.5
"""Widest distance between grid points along a lattice vector [Å]; a bond is resolved at no more."""

_INTEGER_TOLERANCE = (0.05, 2e-3)  # [e], and as a fraction of the count
_STATED_TOLERANCE = 1e-2
_DEFORMATION_TOLERANCE = 1e-2
_LENGTH_TOLERANCE = 1e-3
_ANGLE_TOLERANCE = 0.1  # [degrees]
_VOLUME_TOLERANCE = 0.25

_NOBLE_GASES = (0, 2, 10, 18, 36, 54, 86)


def check_density(density: DensityData, structure: Structure, *, electrons: float | None = None) -> None:
    """Refuse what cannot be a density of this structure.

    Every kind: three axes of at least 8 points and at most 0.5 Å apart, finite numbers, and a
    cell equal to the structure's (lengths within 0.1 %, angles within 0.1 degrees). Then, by
    kind, the integral over the cell:

    ``total``
        lies between what the smallest and the largest pseudopotentials would give
        (:func:`valence_range`), and within 0.05 e or 0.2 %, whichever is more, of an integer;
        or within 1 % of ``electrons`` where that is given. Negative values are no fault: PAW
        pseudo-densities have them near nuclei.
    ``spin``
        its moment is no larger than the number of electrons.
    ``deformation``
        vanishes within 1 % of the number of electrons: moving electrons makes none.

    Parameters
    ----------
    density
        Values in e/Å^3.
    structure
        The structure of the same cell.
    electrons
        For ``total`` the number of electrons that the source states, for the other kinds the
        number in ``total``. None: an integer is asked for, and the structure's largest
        possible number stands in.

    Raises
    ------
    InputError
        With the numbers that do not fit.
    """
    if density.kind not in KINDS:
        raise InputError(f"density kind {density.kind!r} is not known; one of {', '.join(KINDS)}")
    _check_grid(density)
    check_lattice(density, structure)
    count = density.n_electrons
    low, high = valence_range(structure)
    if density.kind == "total":
        if not low * (1 - _STATED_TOLERANCE) <= count <= high * (1 + _INTEGER_TOLERANCE[1]):
            raise InputError(
                f"total density holds {count:.3f} electrons, but {len(structure)} atoms of {_formula(structure)} have "
                f"between {low} valence and {high} electrons in all; check that density and structure belong together "
                "and that values are in the unit of the format"
            )
        if electrons is not None:
            check_count(count, electrons)
        else:
            absolute, relative = _INTEGER_TOLERANCE
            if abs(count - round(count)) > max(absolute, relative * count):
                raise InputError(
                    f"total density of {_formula(structure)} holds {count:.3f} electrons, which is no whole number; "
                    "the grid is damaged, too coarse, or in another unit"
                )
        return
    number = high if electrons is None else electrons
    if density.kind == "spin" and abs(count) > number * (1 + _STATED_TOLERANCE):
        raise InputError(
            f"spin density of {_formula(structure)} has a moment of {count:.3f} mu_B, with {number:.3f} electrons"
        )
    if density.kind == "deformation" and abs(count) > number * _DEFORMATION_TOLERANCE:
        raise InputError(
            f"deformation density of {_formula(structure)} integrates to {count:.3f} e instead of 0 "
            f"({number:.3f} electrons); its reference is of other atoms, another cell or another unit"
        )


def check_densities(densities: Iterable[DensityData], structure: Structure) -> None:
    """:func:`check_density` for all densities of one crystal, each level of theory apart.

    Spin and deformation are measured against the electrons of the total density beside them.

    Raises
    ------
    InputError
        From the first density that cannot be true, or if a kind is there twice.
    """
    found: dict[tuple[str, str], DensityData] = {}
    for density in densities:
        key = (density.level_of_theory, density.kind)
        if key in found:
            raise InputError(f"two {density.kind} densities at level {density.level_of_theory}; keep one")
        found[key] = density
    for (level, kind), density in found.items():
        total = found.get((level, "total")) if kind != "total" else None
        check_density(density, structure, electrons=None if total is None else total.n_electrons)


def check_count(found: float, stated: float) -> None:
    """Compare a number of electrons with the one that the source states: 1 % is allowed.

    Raises
    ------
    InputError
        If they differ by more.
    """
    if not np.isfinite(stated) or abs(found - stated) > _STATED_TOLERANCE * abs(stated):
        raise InputError(
            f"total density holds {found:.3f} electrons, its source states {stated:.3f}; they may differ by 1 %"
        )


def check_lattice(density: DensityData, structure: Structure) -> None:
    """Compare the cell of the grid with the structure's: lengths within 0.1 %, angles within 0.1 degrees.

    Its orientation in space may differ (CIF files know none); the order of the axes may not.

    Raises
    ------
    InputError
        If they differ; the message has both.
    """
    from pymatgen.core.lattice import Lattice

    grid, cell = Lattice(density.lattice), structure.lattice
    lengths = np.allclose(grid.abc, cell.abc, rtol=_LENGTH_TOLERANCE, atol=0.0)
    if not lengths or not np.allclose(grid.angles, cell.angles, rtol=0.0, atol=_ANGLE_TOLERANCE):
        raise InputError(
            f"{density.kind} density lies in a cell of {_parameters(grid)}, the structure in {_parameters(cell)}; "
            "give the structure that the density was calculated for"
        )


def same_crystal(structure: Structure, other: Structure) -> None:
    """Whether two structures, perhaps in different cells, can be one crystal.

    Asked: equal reduced composition, and volumes per atom within 25 % (functionals differ).

    Raises
    ------
    InputError
        If not.
    """
    if not structure.composition.fractional_composition.almost_equals(other.composition.fractional_composition):
        raise InputError(
            f"structure is {_formula(structure)}, its density was calculated for {_formula(other)}; "
            "they do not belong together"
        )
    volume, other_volume = structure.volume / len(structure), other.volume / len(other)
    if abs(volume / other_volume - 1) > _VOLUME_TOLERANCE:
        raise InputError(
            f"structure has {volume:.2f} Å^3 an atom, its density {other_volume:.2f} Å^3; they do not belong together"
        )


def valence_range(structure: Structure) -> tuple[int, int]:
    """Fewest and most electrons that a density of this structure can hold.

    Most: the sum of the atomic numbers (all-electron). Fewest: the sum of what remains of each
    element outside its noble-gas core and outside closed d^10 and f^14 shells, which is what the
    smallest published pseudopotentials treat as valence (Na 1, Ga 3, Cu 1, Zn 2, Fe 8, W 6);
    for lanthanides and actinides, whose f electrons may sit in the core too, 2.
    """
    numbers = [site.specie.Z for site in structure]
    return sum(_smallest_valence(number) for number in numbers), sum(numbers)


def regrid(density: DensityData, shape: tuple[int, int, int] = (60, 60, 60)) -> DensityData:
    """The same density on another grid of the same cell, every electron kept.

    pyrho's ``get_transformed`` samples up by a whole factor (Fourier), then interpolates
    linearly, which is exact only where the finer grid contains the wanted points: for 32^3 to
    60^3 that is ``up_sample=15``, a grid of 480^3 and more than 3 GiB. This goes to the wanted
    shape by pyrho's Fourier step alone (``pyrho.utils.interpolate_fourier``), the limit of
    ``up_sample``: on finer grids the result passes through every given value, and on any
    grid the mean, the zeroth Fourier coefficient, is the same number. A coarser grid drops the
    waves it cannot carry.

    Measured, 32^3 to 60^3, first-principles densities of five crystals (change of the electron
    count; largest error as a fraction of the peak; seconds on one core):

    ============  ==================  ==============  =======
    up_sample     electrons           error           time
    ============  ==================  ==============  =======
    1             0.09 to 0.43 %      7 to 60 %       0.03
    2             0.09 to 0.43 %      0.6 to 4.5 %    0.03
    3             up to 0.001 %       0.8 to 6.9 %    0.06
    4             up to 0.016 %       0.3 to 2.1 %    0.13
    5             below 0.0001 %      0.3 to 2.3 %    0.2
    6             up to 0.0008 %      0.1 to 1.3 %    0.35
    Fourier only  below 1e-15         none            0.006
    ============  ==================  ==============  =======

    Parameters
    ----------
    density
        Values on any grid [e/Å^3].
    shape
        Points along the three lattice vectors.

    Returns
    -------
    DensityData
        Values float64 of ``shape`` [e/Å^3].

    Raises
    ------
    InputError
        If the values are not finite: one such number would spoil them all.
    """
    from pyrho.utils import interpolate_fourier

    values = np.asarray(density.values, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{density.kind} density has values that are not finite; it cannot be regridded")
    if values.shape != tuple(shape):
        values = np.ascontiguousarray(interpolate_fourier(values, list(shape)))
    return replace(density, values=values)


def regrid_primitive(
    density: DensityData, structure: Structure, *, points: int = 60, symprec: float = SYMPREC
) -> DensityData:
    """The density of the primitive cell on ``points`` x ``points`` x ``points`` [e/Å^3].

    A cell that is primitive stays as it is stored, and so does its origin; of an F-centred cubic
    crystal the primitive cell is the rhombohedral one with angles of 60 degrees, whatever cell is
    stored. From a conventional cell with vectors A, B, C it is (B+C)/2, (C+A)/2, (A+B)/2, so that
    ``prim[i, j, k] = conv[(j + k) % 2n, (i + k) % 2n, (i + j) % 2n]`` on a conventional grid of
    (2n)^3, to which :func:`regrid` goes first: nothing is interpolated but by Fourier.

    Parameters
    ----------
    density
        On the grid of the stored cell [e/Å^3].
    structure
        The stored cell [Å].
    points
        Grid points along each vector of the primitive cell.
    symprec
        Tolerance of spglib [Å].

    Raises
    ------
    InputError
        If the stored cell is no simple multiple of the primitive one, or has no symmetry that
        spglib finds.
    """
    from ingest.slices.symmetry import primitive_in_stored

    vectors = primitive_in_stored(structure, symprec=symprec)  # rows, in units of the stored vectors
    if np.array_equal(vectors, np.eye(3)):
        return regrid(density, (points, points, points))
    for parts in range(1, 5):
        steps = np.rint(vectors * parts)
        # Cells are exact multiples of each other only as far as spglib's tolerance goes.
        if np.allclose(vectors * parts, steps, atol=0.02):
            break
    else:
        raise InputError(
            f"the cell of {_formula(structure)} ({len(structure)} atoms) is no simple multiple of "
            "its primitive cell; store the density in the primitive or the conventional cell"
        )
    fine = regrid(density, (points * parts,) * 3).values
    index = np.stack(np.meshgrid(*[np.arange(points)] * 3, indexing="ij"), axis=-1) @ steps.astype(np.int64)
    index %= points * parts
    values = fine[index[..., 0], index[..., 1], index[..., 2]]
    return replace(density, values=values, lattice=(steps / parts) @ np.asarray(density.lattice, dtype=np.float64))


def _check_grid(density: DensityData) -> None:
    values: NDArray[Any] = np.asarray(density.values)
    lattice = np.asarray(density.lattice)
    if values.ndim != 3 or values.dtype.kind != "f":
        raise InputError(
            f"{density.kind} density has shape {values.shape} of type {values.dtype}; "
            "real values on three axes are needed"
        )
    if lattice.shape != (3, 3) or not np.isfinite(lattice).all() or density.volume < 1e-3:
        raise InputError(f"{density.kind} density has no cell: lattice vectors {lattice.tolist()}")
    if min(values.shape) < MIN_POINTS:
        raise InputError(
            f"{density.kind} density has a grid of {_shape(values.shape)}; at least {MIN_POINTS} points along each axis"
        )
    spacing = np.linalg.norm(lattice, axis=1) / values.shape
    if spacing.max() > MAX_SPACING:
        raise InputError(
            f"{density.kind} density has a grid of {_shape(values.shape)}, points up to {spacing.max():.2f} Å apart; "
            f"at most {MAX_SPACING} Å: the grid is too coarse or does not belong to this cell"
        )
    wrong = int(values.size - np.isfinite(values).sum())
    if wrong:
        raise InputError(f"{density.kind} density has {wrong} of {values.size} values that are not finite numbers")


def _smallest_valence(number: int) -> int:
    core = max(noble for noble in _NOBLE_GASES if noble < number)
    outer = number - core
    if core >= 54 and 3 <= outer <= 16:  # La to Yb, Ac to No
        return 2
    if core >= 54 and outer > 16:
        outer -= 14
    return outer - 10 if core >= 18 and outer > 10 else outer


def _formula(structure: Structure) -> str:
    return str(structure.composition.reduced_formula)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(points) for points in shape)


def _parameters(lattice: Any) -> str:
    lengths = ", ".join(f"{length:.4f}" for length in lattice.abc)
    return f"({lengths}) Å, ({', '.join(f'{angle:.2f}' for angle in lattice.angles)}) degrees"
