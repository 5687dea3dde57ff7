"""Reader of density files of every format: values in e/Å^3, with kind and level of theory.

=====================================  ================================================
name                                   content
=====================================  ================================================
``CHGCAR``, ``AECCAR*``, ``PARCHG*``    VASP; ``CHGCAR.reference`` beside it: superposed atoms
``*.cube``                             Gaussian cube, total density; beside it
                                       ``*.spin.cube``, ``*.deformation.cube``, ``*.reference.cube``
``*.h5``, ``*.hdf5``                   pymatgen's HDF5, all kinds in one file
=====================================  ================================================

``.gz`` may follow the name of a VASP or cube file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ingest.densities.checks import check_count
from ingest.readers.cube import read_cube
from ingest.readers.files import plain_name
from ingest.readers.hdf5 import read_hdf5
from ingest.readers.levels_of_theory import UNSPECIFIED, find_level_of_theory, normalize_level_of_theory
from ingest.readers.vasp import read_vasp
from registry.crystals import DensityData
from registry.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["read_densities"]

_Values = dict[str, NDArray[np.floating[Any]]]
_CUBE_KINDS = ("spin", "deformation")


def read_densities(
    path: Path, *, reference: Path | None = None, level_of_theory: str | None = None
) -> tuple[Structure, list[DensityData]]:
    """Read every density of one calculation.

    Parameters
    ----------
    path
        The file; its name decides the format (see the module).
    reference
        Density of the superposed free atoms, on the same grid: ``deformation`` is the total density
        minus this one. None: ``<name>.reference[.gz]`` (VASP) or ``<stem>.reference.cube[.gz]`` beside
        the file, if it exists.
    level_of_theory
        Level of theory of the densities; None: that of the file, else ``unspecified``.

    Returns
    -------
    structure
        Structure in the file; its cell is that of the grids [Å].
    densities
        In the order total, spin, deformation; values in e/Å^3 (spin: mu_B/Å^3).

    Raises
    ------
    InputError
        If a file cannot be read, is truncated, does not match its reference, or contains another
        number of electrons than it states. :func:`ingest.densities.checks.check_density` checks
        whether the densities are possible for the structure.
    """
    name = plain_name(path).lower()
    stated: str | None = None
    provenance: dict[str, str] = {}
    if name.endswith((".h5", ".hdf5")):
        content = read_hdf5(path)
        structure, values, stated = content.structure, dict(content.values), content.level_of_theory
        if content.n_electrons is not None and "total" in values:
            found = float(np.mean(values["total"], dtype=np.float64)) * structure.volume
            try:
                check_count(found, content.n_electrons)
            except InputError as error:
                raise InputError(f"{path.name}: {error}") from None
    elif name.endswith(".cube"):
        structure, values = _read_cubes(path)
        provenance = dict.fromkeys(values, f"Gaussian cube {plain_name(path)}")
    elif any(word in name for word in ("chgcar", "aeccar", "parchg")) or name in ("chg", "chg.reference"):
        structure, blocks = read_vasp(path)
        values = dict(blocks)
        provenance = dict.fromkeys(values, f"VASP {plain_name(path)}")
    else:
        raise InputError(f"{path.name}: the name is not that of a density file; use CHGCAR[.gz], .cube[.gz] or .h5")

    reference = reference if reference is not None else _reference_beside(path)
    if reference is not None:
        if "total" not in values:
            raise InputError(
                f"{path.name}: has no total density, from which the reference {reference.name} could be subtracted"
            )
        values["deformation"] = _deformation(path, structure, values["total"], reference)
        provenance["deformation"] = f"{provenance.get('total', path.name)} minus {plain_name(reference)}"

    found_level = normalize_level_of_theory(level_of_theory) if level_of_theory else find_level_of_theory(stated)
    lattice = np.array(structure.lattice.matrix, dtype=np.float64)
    return structure, [
        DensityData(
            kind=kind,
            level_of_theory=found_level or UNSPECIFIED,
            values=values[kind],
            lattice=lattice,
            provenance=stated or provenance.get(kind),
        )
        for kind in ("total", "spin", "deformation")
        if kind in values
    ]


def _read_cubes(path: Path) -> tuple[Structure, _Values]:
    stem = plain_name(path)[: -len(".cube")]
    for kind in _CUBE_KINDS:
        if stem.lower().endswith(f".{kind}"):
            structure, grid = read_cube(path)
            return structure, {kind: grid}
    structure, total = read_cube(path)
    values: _Values = {"total": total}
    for kind in _CUBE_KINDS:
        beside = _first_file(path.parent, f"{stem}.{kind}.cube")
        if beside is not None:
            other, grid = read_cube(beside)
            _same_grid(path, structure, total, beside, other, grid)
            values[kind] = grid
    return structure, values


def _reference_beside(path: Path) -> Path | None:
    name = plain_name(path)
    if name.lower().endswith((".h5", ".hdf5")):
        return None
    stem = name[: -len(".cube")] if name.lower().endswith(".cube") else None
    if stem is not None:
        if stem.lower().endswith((".spin", ".deformation", ".reference")):
            return None
        return _first_file(path.parent, f"{stem}.reference.cube")
    return None if name.endswith(".reference") else _first_file(path.parent, f"{name}.reference")


def _first_file(folder: Path, name: str) -> Path | None:
    return next((file for file in (folder / name, folder / f"{name}.gz") if file.is_file()), None)


def _deformation(
    path: Path, structure: Structure, total: NDArray[np.floating[Any]], reference: Path
) -> NDArray[np.floating[Any]]:
    name = plain_name(reference).lower()
    if name.endswith(".cube"):
        other, atoms = read_cube(reference)
    else:
        other, blocks = read_vasp(reference)
        atoms = blocks["total"]
    _same_grid(path, structure, total, reference, other, atoms)
    return total - atoms


def _same_grid(
    path: Path,
    structure: Structure,
    values: NDArray[np.floating[Any]],
    other_path: Path,
    other: Structure,
    other_values: NDArray[np.floating[Any]],
) -> None:
    if values.shape != other_values.shape:
        raise InputError(
            f"{other_path.name} has a grid of {other_values.shape}, {path.name} one of {values.shape}; "
            "calculate both on the same grid"
        )
    if not np.allclose(structure.lattice.matrix, other.lattice.matrix, rtol=0.0, atol=1e-3):
        raise InputError(f"{other_path.name} and {path.name} have different cells; calculate both in the same one")
    shift = structure.frac_coords - other.frac_coords if len(structure) == len(other) else None
    if shift is None or structure.species != other.species or np.abs(shift - np.rint(shift)).max() > 1e-3:
        raise InputError(f"{other_path.name} and {path.name} have different atoms; both must be of one structure")
