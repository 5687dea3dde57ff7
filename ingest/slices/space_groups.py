"""Space group and prototype of a structure, and the F-centred cubic space groups."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["F_CENTRED_CUBIC", "SYMPREC", "SpaceGroup", "space_group"]

SYMPREC = 0.01
"""Default tolerance of spglib on atomic positions [Å]."""

F_CENTRED_CUBIC = frozenset({196, 202, 203, 209, 210, 216, 219, 225, 226, 227, 228})
"""Numbers of the cubic space groups whose symbol begins with F (International Tables A)."""


@dataclass(frozen=True)
class SpaceGroup:
    """Space group and prototype of a structure."""

    number: int
    """1 to 230."""
    symbol: str
    """Short Hermann-Mauguin symbol: ``Fm-3m``."""
    prototype: str
    """Anonymous formula, Pearson symbol and number: ``AB-cF8-225`` is rock salt."""

    @property
    def f_centred_cubic(self) -> bool:
        """Whether the space group is F-centred cubic."""
        return self.number in F_CENTRED_CUBIC

    def __str__(self) -> str:
        return f"{self.symbol} ({self.number})"


def space_group(structure: Structure, *, symprec: float = SYMPREC) -> SpaceGroup:
    """Determine space group and prototype with spglib.

    The Pearson symbol consists of the crystal family (a, m, o, t, h, c), the centring of the
    conventional cell (S for one centred face) and its number of atoms; for a rhombohedral crystal
    (hR) the number of atoms of the primitive cell (IUPAC Red Book 2005, IR-3.4.4).

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
    import spglib

    formula = structure.composition.reduced_formula
    cell = (
        structure.lattice.matrix.tolist(),
        structure.frac_coords.tolist(),
        [int(site.specie.Z) for site in structure],
    )
    with warnings.catch_warnings():
        # spglib reports a failure as None or as an error, depending on its version; both are handled.
        warnings.filterwarnings("ignore", message=".*OLD_ERROR_HANDLING", category=DeprecationWarning)
        try:
            dataset = spglib.get_symmetry_dataset(cell, symprec=symprec)
        except spglib.SpglibError:
            dataset = None
    if dataset is None:
        raise InputError(f"spglib finds no space group of {formula} within {symprec} Å; are two atoms too close?")
    number, symbol = int(dataset.number), str(dataset.international)
    centring = symbol[0]
    atoms = len(np.asarray(dataset.std_types))
    if centring == "R":
        atoms //= 3
    pearson = f"{_family(number)}{'S' if centring in 'ABC' else centring}{atoms}"
    return SpaceGroup(number, symbol, f"{structure.composition.anonymized_formula}-{pearson}-{number}")


def _family(number: int) -> str:
    for last, letter in ((2, "a"), (15, "m"), (74, "o"), (142, "t"), (194, "h"), (230, "c")):
        if number <= last:
            return letter
    raise ValueError(f"there is no space group {number}")
