"""Reader of Gaussian cube files.

Two comment lines; number of atoms and origin; three lines with the number of points and
the step along each axis; one line per atom; then the values, with the last index fastest.
Lengths are in Bohr, or in Å where the number of points is negative; values in e/Bohr^3.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ingest.readers.files import read_bytes
from ingest.readers.structures import plain_structure
from registry.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["BOHR", "read_cube"]

BOHR = 0.529177210544
"""Bohr radius [Å], CODATA 2022."""


def read_cube(path: Path) -> tuple[Structure, NDArray[np.float64]]:
    """Read one periodic density from a cube file, plain or gzipped.

    The cell is the number of points times the step along each axis; atoms are shifted so that the
    file's origin, the position of the first value, is the origin of the cell.

    Returns
    -------
    structure
        [Å].
    values
        Shape (n1, n2, n3) [e/Å^3].

    Raises
    ------
    InputError
        If the file is truncated or damaged, contains orbitals or several values per point, or no atoms.
    """
    from pymatgen.core.periodic_table import Element
    from pymatgen.core.structure import Structure

    name = path.name
    try:
        lines = read_bytes(path).decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{name}: not a text file; a Gaussian cube file is expected") from None
    try:
        first = lines[2].split()
        n_atoms, origin = int(first[0]), np.array(first[1:4], dtype=np.float64)
        per_point = int(first[4]) if len(first) > 4 else 1
        axes = [lines[row].split() for row in (3, 4, 5)]
        counts = [int(words[0]) for words in axes]
        steps = np.array([words[1:4] for words in axes], dtype=np.float64)
        atoms = np.array([lines[6 + row].split()[:5] for row in range(abs(n_atoms))], dtype=np.float64)
    except (IndexError, ValueError) as error:
        raise InputError(f"{name}: has an incomplete cube header ({error})") from None
    if n_atoms < 0 or per_point != 1:
        raise InputError(f"{name}: contains orbitals or several values per point; one density is needed")
    if n_atoms == 0 or 0 in counts or origin.shape != (3,) or steps.shape != (3, 3) or atoms.shape != (n_atoms, 5):
        raise InputError(f"{name}: cube header without atoms, points or axes")
    if len({count > 0 for count in counts}) != 1:
        raise InputError(f"{name}: numbers of points {counts} have both signs, so the unit of length is ambiguous")
    unit = BOHR if counts[0] > 0 else 1.0
    shape = (abs(counts[0]), abs(counts[1]), abs(counts[2]))
    lattice = steps * np.array(shape)[:, None] * unit
    if abs(np.linalg.det(lattice)) < 1e-3:
        raise InputError(f"{name}: the axes of the grid span no volume")
    numbers = atoms[:, 0]
    if not all(number == round(number) and Element.is_valid_symbol(_symbol(int(number))) for number in numbers):
        raise InputError(f"{name}: atomic numbers {numbers.tolist()} are not those of elements")
    structure = Structure(
        lattice,
        [_symbol(int(number)) for number in numbers],
        (atoms[:, 2:5] - origin) * unit,
        coords_are_cartesian=True,
    )
    words = " ".join(lines[6 + n_atoms :]).split()
    if len(words) != np.prod(shape):
        raise InputError(f"{name}: has {len(words)} of {np.prod(shape)} values; the file is truncated or damaged")
    try:
        values = np.array(words, dtype=np.float64).reshape(shape)
    except ValueError as error:
        raise InputError(f"{name}: contains something that is not a number ({error})") from None
    return plain_structure(structure, name), values / BOHR**3


def _symbol(number: int) -> str:
    from pymatgen.core.periodic_table import Element

    return str(Element.from_Z(number).symbol) if 1 <= number <= 118 else ""
