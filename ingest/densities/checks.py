"""Checks of electron charge densities: grid, cell, and number of electrons.

Values are in e/Å^3 (spin: mu_B/Å^3). The grid runs along the lattice vectors of its cell without a
repeated end point: ``values[i, j, k]`` is the value at the fractional point (i/n1, j/n2, k/n3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from registry.crystals import DensityData
from registry.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = [
    "KINDS",
    "MAX_SPACING",
    "MIN_POINTS",
    "check_count",
    "check_density",
    "check_lattice",
    "check_same_crystal",
    "valence_range",
]

KINDS = ("total", "spin", "deformation")
"""Density kinds, in the order in which they are checked and written."""

MIN_POINTS = 8
"""Minimum number of grid points along a lattice vector."""

MAX_SPACING = 0.5
"""Maximum distance between grid points along a lattice vector [Å] at which a bond is resolved."""

_INTEGER_TOLERANCE = (0.05, 2e-3)  # [e], and as a fraction of the count
_STATED_TOLERANCE = 1e-2
_DEFORMATION_TOLERANCE = 1e-2
_LENGTH_TOLERANCE = 1e-3
_ANGLE_TOLERANCE = 0.1  # [degrees]
_VOLUME_TOLERANCE = 0.25

_NOBLE_GASES = (0, 2, 10, 18, 36, 54, 86)


def check_density(density: DensityData, structure: Structure, *, electrons: float | None = None) -> None:
    """Check that a density can belong to a structure.

    Every kind: three axes of at least 8 points and at most 0.5 Å apart, finite numbers, and a
    cell equal to the structure's (lengths within 0.1 %, angles within 0.1 degrees). Then, by
    kind, the integral over the cell:

    ``total``
        is between the numbers of electrons of the smallest and the largest pseudopotentials
        (:func:`valence_range`), and within 0.05 e or 0.2 %, whichever is more, of an integer,
        or within 1 % of ``electrons`` if given. Negative values are allowed: PAW pseudo-densities
        have them near nuclei.
    ``spin``
        is a moment that does not exceed the number of electrons.
    ``deformation``
        is zero within 1 % of the number of electrons.

    Parameters
    ----------
    density
        Values in e/Å^3.
    structure
        Structure of the same cell.
    electrons
        For ``total`` the number of electrons that the source states, for the other kinds the
        number in ``total``. None: ``total`` must be an integer, and the other kinds are compared
        with the maximum number of electrons of the structure.

    Raises
    ------
    InputError
        If a check fails; the message contains the numbers.
    """
    if density.kind not in KINDS:
        raise InputError(f"unknown density kind {density.kind!r}; choose one of {', '.join(KINDS)}")
    _check_grid(density)
    check_lattice(density, structure)
    count = density.n_electrons
    low, high = valence_range(structure)
    if density.kind == "total":
        if not low * (1 - _STATED_TOLERANCE) <= count <= high * (1 + _INTEGER_TOLERANCE[1]):
            raise InputError(
                f"total density contains {count:.3f} electrons, but {len(structure)} atoms of {_formula(structure)} "
                f"have {low} (valence) to {high} (all) electrons; check that density and structure belong together "
                "and that values are in the unit of the format"
            )
        if electrons is not None:
            check_count(count, electrons)
        else:
            absolute, relative = _INTEGER_TOLERANCE
            if abs(count - round(count)) > max(absolute, relative * count):
                raise InputError(
                    f"total density of {_formula(structure)} contains {count:.3f} electrons, which is not a whole "
                    "number; the grid is damaged, too coarse, or in another unit"
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


def check_count(found: float, stated: float) -> None:
    """Compare a number of electrons with the one that the source states; 1 % difference is allowed.

    Raises
    ------
    InputError
        If they differ by more.
    """
    if not np.isfinite(stated) or abs(found - stated) > _STATED_TOLERANCE * abs(stated):
        raise InputError(
            f"total density contains {found:.3f} electrons, its source states {stated:.3f}; they may differ by 1 %"
        )


def check_lattice(density: DensityData, structure: Structure) -> None:
    """Compare the cell of the grid with the structure's: lengths within 0.1 %, angles within 0.1 degrees.

    The orientation in space may differ (CIF files have none); the order of the axes may not.

    Raises
    ------
    InputError
        If they differ; the message contains both.
    """
    from pymatgen.core.lattice import Lattice

    grid, cell = Lattice(density.lattice), structure.lattice
    lengths = np.allclose(grid.abc, cell.abc, rtol=_LENGTH_TOLERANCE, atol=0.0)
    if not lengths or not np.allclose(grid.angles, cell.angles, rtol=0.0, atol=_ANGLE_TOLERANCE):
        raise InputError(
            f"{density.kind} density has a cell of {_parameters(grid)}, the structure one of {_parameters(cell)}; "
            "give the structure that the density was calculated for"
        )


def check_same_crystal(structure: Structure, other: Structure) -> None:
    """Check that two structures, possibly in different cells, can be one crystal.

    Required are equal reduced compositions, and volumes per atom within 25 % (functionals differ).

    Raises
    ------
    InputError
        If a requirement is not met.
    """
    if not structure.composition.fractional_composition.almost_equals(other.composition.fractional_composition):
        raise InputError(
            f"structure is {_formula(structure)}, its density was calculated for {_formula(other)}; "
            "they do not belong together"
        )
    volume, other_volume = structure.volume / len(structure), other.volume / len(other)
    if abs(volume / other_volume - 1) > _VOLUME_TOLERANCE:
        raise InputError(
            f"structure has {volume:.2f} Å^3 per atom, its density {other_volume:.2f} Å^3; they do not belong together"
        )


def valence_range(structure: Structure) -> tuple[int, int]:
    """Minimum and maximum number of electrons of a density of this structure.

    Maximum: the sum of the atomic numbers (all-electron). Minimum: for each element the electrons
    outside its noble-gas core and outside closed d^10 and f^14 shells, the valence of the smallest
    published pseudopotentials (Na 1, Ga 3, Cu 1, Zn 2, Fe 8, W 6); for lanthanides and actinides,
    with f electrons that may be in the core, 2.
    """
    numbers = [site.specie.Z for site in structure]
    return sum(_smallest_valence(number) for number in numbers), sum(numbers)


def _check_grid(density: DensityData) -> None:
    values: NDArray[Any] = np.asarray(density.values)
    lattice = np.asarray(density.lattice)
    if values.ndim != 3 or values.dtype.kind != "f":
        raise InputError(
            f"{density.kind} density has shape {values.shape} of type {values.dtype}; "
            "real values on three axes are required"
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
