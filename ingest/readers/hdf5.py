"""Reader of pymatgen's HDF5 layout of volumetric data (``VolumetricData.to_hdf5``).

``vdata/total``, ``vdata/diff`` (spin, up minus down) and ``vdata/deformation`` contain rho x V,
the attribute ``structure_json`` the structure; the attributes ``level_of_theory`` and
``n_electrons`` are optional.
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
    """Content of an HDF5 file."""

    structure: Structure
    values: dict[str, NDArray[np.floating[Any]]]
    """By density kind, shape (n1, n2, n3) [e/Å^3]; float32 stays float32."""
    level_of_theory: str | None
    """In the wording of the file."""
    n_electrons: float | None


def read_hdf5(path: Path) -> Hdf5Content:
    """Read pymatgen's HDF5 layout; data sets with other names in ``vdata`` are ignored.

    Raises
    ------
    InputError
        If the file is damaged, or does not have this layout.
    """
    import h5py

    if not path.is_file():
        raise InputError(f"{path}: cannot be read (no such file)")
    try:
        with h5py.File(path, mode="r") as file:
            return _read(file, path.name)
    except (OSError, RuntimeError, KeyError) as error:  # h5py, for damage behind the file signature
        raise InputError(f"{path.name}: damaged or not an HDF5 file ({' '.join(str(error).split())[:120]})") from None


def _read(file: h5py.File, name: str) -> Hdf5Content:
    import h5py
    from pymatgen.core.structure import Structure

    group = _member(file, "vdata", name)
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
        stored = _member(group, key, name)
        if stored is None:
            continue
        data = np.asarray(stored)
        if data.ndim != 3 or data.dtype.kind != "f":
            raise InputError(f"{name}: vdata/{key} has shape {data.shape} of type {data.dtype}; a real grid is needed")
        values[kind] = data / data.dtype.type(structure.volume)
    if not values:
        raise InputError(f"{name}: vdata contains none of {', '.join(_KINDS)}")
    stated = file.attrs.get("level_of_theory")
    return Hdf5Content(
        structure=structure,
        values=values,
        level_of_theory=stated.decode("utf-8", "replace") if isinstance(stated, bytes) else stated and str(stated),
        n_electrons=_number(file.attrs.get("n_electrons"), name),
    )


def _member(group: h5py.Group, key: str, name: str) -> Any:
    """Member of a group; None where it does not exist.

    Links to other files are not followed: they may point to any file of this machine, and a change
    there would not change the checksum of this file.

    Raises
    ------
    InputError
        If the member is a link, or its data are stored in another file.
    """
    import h5py

    link = group.get(key, getlink=True)
    if link is None:
        return None
    member = group[key] if isinstance(link, h5py.HardLink) else None
    if member is None or (isinstance(member, h5py.Dataset) and (member.external or member.is_virtual)):
        raise InputError(f"{name}: {key!r} is a link or is stored in another file; write the file with its data inside")
    return member


def _number(value: Any, name: str) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name}: its n_electrons is {value!r}, which is not a number") from None
