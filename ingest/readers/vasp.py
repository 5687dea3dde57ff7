"""Reader of VASP's volumetric files: CHGCAR, CHG, AECCAR, PARCHG.

A POSCAR, an empty line, the grid's three dimensions, then rho x V with the first index fastest;
after each block the PAW augmentation occupancies, which are checked for completeness and not used;
for a spin-polarised calculation a second block, up minus down.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ingest.readers.files import read_bytes
from ingest.readers.structures import plain_structure, structure_from_poscar
from registry.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["read_vasp"]

_AUGMENTATION = b"augmentation occupancies"


def read_vasp(path: Path) -> tuple[Structure, dict[str, NDArray[np.float64]]]:
    """Read a VASP volumetric file, plain or gzipped.

    A non-collinear calculation (four blocks) gives only the total density: a magnetisation with a
    direction has no single spin density.

    Returns
    -------
    structure
        Structure in the file [Å].
    blocks
        ``total``, and ``spin`` where the calculation was spin-polarised; shape (n1, n2, n3) [e/Å^3],
        [mu_B/Å^3].

    Raises
    ------
    InputError
        If the file is truncated, damaged, or not of this format.
    """
    data = read_bytes(path)
    if data.strip() and not data.endswith(b"\n"):
        raise InputError(f"{path.name}: ends in the middle of a line; the file is truncated, copy it again")
    head, body = _split_head(data, path.name)
    structure = plain_structure(structure_from_poscar(head, path.name), path.name)
    blocks = _Blocks(body, path.name, len(structure)).read()
    if len(blocks) not in (1, 2, 4):
        raise InputError(f"{path.name}: contains {len(blocks)} grids; 1, 2 (spin) or 4 (non-collinear) are possible")
    for values in blocks:
        values /= structure.volume
    kinds = ("total", "spin") if len(blocks) == 2 else ("total",)
    return structure, dict(zip(kinds, blocks, strict=False))


def _split_head(data: bytes, name: str) -> tuple[str, bytes]:
    # The title may be empty, so the search for the empty line starts after it.
    match = re.compile(rb"\n[ \t\r]*\n").search(data, data.find(b"\n") + 1)
    if match is None:
        raise InputError(f"{name}: has no empty line between structure and grid; not a complete VASP density file")
    # The title may be in any encoding; the lines that are parsed are ASCII.
    return data[: match.start() + 1].decode("utf-8", "replace"), data[match.end() :]


class _Blocks:
    """Parser of the blocks of one file; checks the number of values of each."""

    def __init__(self, body: bytes, name: str, n_atoms: int) -> None:
        self._lines = body.splitlines()
        self._at = 0
        self._name = name
        self._n_atoms = n_atoms

    def read(self) -> list[NDArray[np.float64]]:
        shape = self._dimensions()
        if shape is None:
            raise InputError(
                f"{self._name}: has no grid dimensions after the structure; not a complete VASP density file"
            )
        blocks: list[NDArray[np.float64]] = []
        while True:
            number = len(blocks) + 1
            blocks.append(self._numbers(int(np.prod(shape)), f"grid {number}").reshape(shape, order="F").copy())
            moments = self._augmentation()
            following = self._dimensions()
            if following is None:
                if moments or self._at < len(self._lines):
                    raise InputError(f"{self._name}: ends within the header of grid {number + 1}; it is truncated")
                return blocks
            if following != shape:
                raise InputError(f"{self._name}: grid {number + 1} has dimensions {following}, the first {shape}")

    def _dimensions(self) -> tuple[int, int, int] | None:
        while self._at < len(self._lines) and not self._lines[self._at].strip():
            self._at += 1
        if self._at == len(self._lines):
            return None
        words = self._lines[self._at].split()
        if len(words) != 3 or not all(word.isdigit() and int(word) > 0 for word in words):
            return None
        self._at += 1
        return int(words[0]), int(words[1]), int(words[2])

    def _numbers(self, count: int, what: str) -> NDArray[np.float64]:
        """Read exactly ``count`` numbers from complete lines."""
        per_line = len(self._lines[self._at].split()) if self._at < len(self._lines) else 0
        rows = -(-count // per_line) if per_line else 0
        words = b" ".join(self._lines[self._at : self._at + rows]).split()
        self._at += rows
        if len(words) != count:
            raise InputError(
                f"{self._name}: {what} has {len(words)} of {count} values; the file is truncated or damaged"
            )
        try:
            return np.array(words, dtype=np.float64)
        except ValueError as error:
            raise InputError(f"{self._name}: {what} contains something that is not a number ({error})") from None

    def _augmentation(self) -> bool:
        """Skip augmentation occupancies; return whether initial moments follow, as they do before another grid."""
        moments, ions = False, set()
        while self._at < len(self._lines):
            line = self._lines[self._at].strip()
            if line.startswith(_AUGMENTATION):
                words = line.split()
                self._at += 1
                try:
                    ion, count = int(words[-2]), int(words[-1])
                except (ValueError, IndexError):
                    raise InputError(f"{self._name}: augmentation occupancies without ion and count") from None
                self._numbers(count, f"augmentation of ion {ion}")
                ions.add(ion)
            elif b"." in line:  # the atoms' initial moments, which VASP writes before the next grid
                moments = True
                self._at += 1
            elif not line:
                self._at += 1
            else:
                break
        if ions and len(ions) != self._n_atoms:
            raise InputError(
                f"{self._name}: has augmentation occupancies of {len(ions)} of {self._n_atoms} atoms; it is truncated"
            )
        return moments
