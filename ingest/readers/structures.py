"""Reader of crystal structures from CIF, VASP and pymatgen JSON files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.readers.files import plain_name, read_bytes
from registry.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["STRUCTURE_SUFFIXES", "plain_structure", "read_structure", "structure_from_poscar"]

STRUCTURE_SUFFIXES = (".cif", ".vasp", ".poscar", ".json")
"""Suffixes of structure files, in the order in which a dataset folder is searched; ``.gz`` may follow."""


def read_structure(path: Path) -> Structure:
    """Read one crystal structure.

    ``.cif``; ``.vasp``, ``.poscar`` and names with POSCAR or CONTCAR; ``.json`` with pymatgen's
    ``Structure.as_dict()``. ``.gz`` may follow. The result is a :func:`plain_structure` with the cell
    of the file, which is never reduced.

    Returns
    -------
    Structure
        Lattice vectors [Å] and fractional coordinates.

    Raises
    ------
    InputError
        If the file does not have the format of its suffix, contains no or several structures, or has
        partially occupied sites.
    """
    name = plain_name(path).lower()
    if name.endswith(".cif"):
        return plain_structure(_from_cif(path), path.name)
    if name.endswith((".vasp", ".poscar")) or "poscar" in name or "contcar" in name:
        return plain_structure(structure_from_poscar(_text(path), path.name), path.name)
    if name.endswith(".json"):
        return plain_structure(_from_json(path), path.name)
    raise InputError(
        f"{path.name}: the name is not that of a structure file; use {', '.join(STRUCTURE_SUFFIXES)} or POSCAR"
    )


def structure_from_poscar(text: str, name: str) -> Structure:
    """Parse the structure of a POSCAR, or of the head of a CHGCAR.

    Raises
    ------
    InputError
        If it cannot be parsed, or does not contain element symbols (VASP 4).
    """
    from pymatgen.io.vasp.inputs import BadPoscarWarning, Poscar

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # pymatgen invents elements where the file has no symbols.
        warnings.simplefilter("error", BadPoscarWarning)
        try:
            structure: Structure = Poscar.from_str(text, read_velocities=False).structure
        except BadPoscarWarning as error:
            raise InputError(f"{name}: {_one_line(error)}; write the element symbols above their numbers") from None
        except Exception as error:  # noqa: BLE001  pymatgen raises errors of many types
            raise InputError(f"{name}: cannot be read as a POSCAR ({_one_line(error)})") from None
    return structure


def plain_structure(structure: Any, name: str) -> Structure:
    """Reduce a structure to plain elements: no oxidation states, labels, velocities or other site properties.

    Raises
    ------
    InputError
        If there are no sites, a site is partially occupied, or is not occupied by an element.
    """
    from pymatgen.core.periodic_table import Element
    from pymatgen.core.structure import Structure

    if not isinstance(structure, Structure) or len(structure) == 0:
        raise InputError(f"{name}: contains no periodic structure with atoms")
    elements = []
    for number, site in enumerate(structure, start=1):
        if not site.is_ordered:
            raise InputError(
                f"{name}: partial occupancy at site {number} ({site.species_string}); "
                "only ordered structures have one electron density"
            )
        symbol = getattr(getattr(site.specie, "element", site.specie), "symbol", str(site.specie))
        if not Element.is_valid_symbol(symbol):
            raise InputError(f"{name}: site {number} contains {symbol!r}, which is not an element")
        elements.append(Element(symbol))
    return Structure(structure.lattice, elements, structure.frac_coords)


def _from_cif(path: Path) -> Any:
    from pymatgen.io.cif import CifParser

    text = _text(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            # Tolerance 1 keeps the occupancies of the file: pymatgen would rescale them silently.
            structures = CifParser.from_str(text, occupancy_tolerance=1.0).parse_structures(primitive=False)
        except Exception as error:  # noqa: BLE001  pymatgen raises errors of many types
            detail = _cause([str(warning.message) for warning in caught]) or error
            raise InputError(f"{path.name}: cannot be read as a CIF file ({_one_line(detail)})") from None
    if len(structures) != 1:
        raise InputError(f"{path.name}: contains {len(structures)} structures; one is needed")
    return structures[0]


def _cause(warned: Sequence[str]) -> str:
    """The reason in pymatgen's warnings for which a CIF file has no structure; empty where none states it."""
    found = [text for text in warned if "No structure parsed" in text]
    if not found:
        return ""
    lines = found[-1][found[-1].rindex("No structure parsed") :].splitlines()
    return ": ".join(line.removesuffix(".") for line in lines)


def _from_json(path: Path) -> Any:
    from pymatgen.core.structure import Structure

    try:
        content = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path.name}: not a JSON file ({error})") from None
    if not isinstance(content, dict) or "lattice" not in content or "sites" not in content:
        raise InputError(f"{path.name}: contains no pymatgen structure (Structure.as_dict: lattice and sites)")
    try:
        return Structure.from_dict(content)
    except Exception as error:  # noqa: BLE001  pymatgen raises errors of many types for wrong keys and types
        raise InputError(f"{path.name}: cannot be read as a pymatgen structure ({_one_line(error)})") from None


def _text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path.name}: not a text file in UTF-8") from None


def _one_line(error: object) -> str:
    words = " ".join(str(error).split())
    return (words[:157] + "...") if len(words) > 160 else words or type(error).__name__
