"""pymatgen's HDF5 layout of volumetric data (``VolumetricData.to_hdf5``).

``vdata/total``, ``vdata/diff`` (spin, up minus down) and ``vdata/deformation`` hold rho x V;
the attribute ``structure_json`` the structure; ``level_of_theory`` and ``n_electrons`` may be
there as well.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ingest.readers.structures import plain_structure
from registry.errors import InputError

if TYPE_CHECKING:
    import h5py
    from pymatgen.core.structure import Structure

__all__ = ["Hdf5Content", "read_hdf5"]

_KINDS = {"total": "total", "diff": "spin", "deformation": "deformation"}


@dataclass(frozen=True, eq=False)
class Hdf5Content:
    """What an HDF5 file says."""

    structure: Structure
    values: dict[str, NDArray[np.floating[Any]]]
    """By density kind, shape (n1, n2, n3) [e/Å^3]; float32 stays float32."""
    level_of_theory: str | None
    """As the file says it."""
    n_electrons: float | None


def read_hdf5(path: Path) -> Hdf5Content:
    """Read pymatgen's HDF5 layout; data sets of other names in ``vdata`` are no densities and are left.

    Raises
    ------
    InputError
        If the file is damaged, or has not this layout.
    """
    import h5py

    if not path.is_file():
        raise InputError(f"{path}: cannot be read (no such file)")
    try:
        with h5py.File(path, mode="r") as file:
            return _read(file, path.name)
    except (OSError, RuntimeError, KeyError) as error:  # h5py: what is damaged below its signature
        raise InputError(f"{path.name}: damaged or not an HDF5 file ({' '.join(str(error).split())[:120]})") from None


def _read(file: h5py.File, name: str) -> Hdf5Content:
    import h5py
    from pymatgen.core.structure import Structure

    group = _inside(file, "vdata", name)
    text = file.attrs.get("structure_json")
    if not isinstance(group, h5py.Group) or not isinstance(text, str | bytes):
        raise InputError(
            f"{name}: not in pymatgen's layout (a group 'vdata' and an attribute 'structure_json'); "
            "write it with VolumetricData.to_hdf5"
        )
    try:
        structure = plain_structure(Structure.from_dict(json.loads(text)), name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{name}: its structure_json cannot be read ({' '.join(str(error).split())[:120]})") from None
    values: dict[str, NDArray[np.floating[Any]]] = {}
    for key, kind in _KINDS.items():
        stored = _inside(group, key, name)
        if stored is None:
            continue
        data = np.asarray(stored)
        if data.ndim != 3 or data.dtype.kind != "f":
            raise InputError(f"{name}: vdata/{key} has shape {data.shape} of type {data.dtype}; a real grid is needed")
        values[kind] = data / data.dtype.type(structure.volume)
    if not values:
        raise InputError(f"{name}: vdata holds none of {', '.join(_KINDS)}")
    level = file.attrs.get("level_of_theory")
    return Hdf5Content(
        structure=structure,
        values=values,
        level_of_theory=level.decode("utf-8", "replace") if isinstance(level, bytes) else level and str(level),
        n_electrons=_number(file.attrs.get("n_electrons"), name),
    )


def _inside(group: h5py.Group, key: str, name: str) -> Any:
    """A member of a group, None where there is none.

    Nothing that leads out of the file is followed: it may name any file of this machine, and the
    checksum of this one would not tell when that changes.

    Raises
    ------
    InputError
        If it is a link, or data that lie in another file.
    """
    import h5py

    link = group.get(key, getlink=True)
    if link is None:
        return None
    member = group[key] if isinstance(link, h5py.HardLink) else None
    if member is None or (isinstance(member, h5py.Dataset) and (member.external or member.is_virtual)):
        raise InputError(f"{name}: {key!r} is a link or lies in another file; write the file with its data inside")
    return member


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name}: its n_electrons is {value!r}, which is no number") from None
