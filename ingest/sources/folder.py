"""Dataset folder: the source of the user's own data.

::

    DIR/properties.csv       id, formula, and a column per property (`ecdreg properties list` names them);
                             level_of_theory, if the rows have one
    DIR/structures/<id>.cif | .vasp | .poscar | .json
    DIR/densities/<id>/CHGCAR[.gz] (with CHGCAR.reference[.gz] for the superposed atoms)
                  <id>.cube[.gz] (with <id>.spin.cube, .deformation.cube, .reference.cube) | <id>.h5
    DIR/images/<id>.png | .npy        slices rendered elsewhere
    DIR/descriptions.csv     id, description; optional: generator and generator_version

Every part except ``properties.csv`` is optional. An unusable table is a
:class:`~registry.errors.SourceError`; an unusable crystal is an outcome of that crystal.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.readers.images import IMAGE_SUFFIXES
from ingest.readers.levels_of_theory import UNSPECIFIED, normalize_level_of_theory
from ingest.readers.structures import STRUCTURE_SUFFIXES
from ingest.sources.base import RawCrystal, RawDescription
from registry.crystals import DensityData, PropertyData
from registry.errors import ConfigurationError, InputError, SourceError
from registry.properties import PROPERTIES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pymatgen.core.structure import Structure

__all__ = ["FolderRecord", "FolderSource"]

_DENSITY_SUFFIXES = (".cube", ".cube.gz", ".h5")
_CUBE_COMPANIONS = tuple(
    f".{kind}.cube{suffix}" for kind in ("spin", "deformation", "reference") for suffix in ("", ".gz")
)
_ID_COLUMNS = ("id", "formula", "level_of_theory")


@dataclass(frozen=True)
class FolderRecord:
    """One crystal of a dataset folder; see :class:`~ingest.sources.base.SourceRecord`."""

    source: str
    source_id: str
    formula: str | None
    values: tuple[tuple[str, str], ...] = ()
    """Property columns and their cells, without empty cells."""
    level_of_theory: str | None = None
    release: str | None = None
    structures: tuple[Path, ...] = ()
    densities: tuple[Path, ...] = ()
    companions: tuple[Path, ...] = ()
    """Files that are read together with the density: superposed atoms, further kinds."""
    reference: Path | None = None
    """Superposed atoms in a file that is not beside the density."""
    images: tuple[Path, ...] = ()
    description: RawDescription | None = None
    fault: str | None = None
    """Reason why the row is unusable."""

    @property
    def has_description(self) -> bool:
        return self.description is not None

    def input_sha256(self) -> str:
        """SHA-256 of the row, the description and the bytes of every file of this crystal."""
        given = self.description
        row = {
            "id": self.source_id,
            "formula": self.formula,
            "values": self.values,
            "level_of_theory": self.level_of_theory,
            "release": self.release,
            "description": given and (given.text, given.generator, given.generator_version),
            "fault": self.fault,
        }
        digest = hashlib.sha256(json.dumps(row, sort_keys=True).encode())
        reference = () if self.reference is None else (self.reference,)
        for path in (*self.structures, *self.densities, *self.companions, *reference, *self.images):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"\n{path.parent.name}/{path.name} {content}".encode())
        return digest.hexdigest()

    def read(self, *, level_of_theory: str | None = None) -> RawCrystal:
        """Read the files; see :meth:`ingest.sources.base.SourceRecord.read`.

        Raises
        ------
        InputError
            If the row or the structure cannot be used.
        OSError
            If a file cannot be read now.
        """
        if self.fault is not None:
            raise InputError(self.fault)
        own_level = normalize_level_of_theory(self.level_of_theory or level_of_theory or UNSPECIFIED)
        problems: list[str] = []
        structure = self._structure()
        own, densities = self._densities(level_of_theory, problems)
        return RawCrystal(
            formula=self.formula,
            structure=structure,
            properties=tuple(self._properties(own_level, problems)),
            densities=tuple(densities),
            density_structure=own,
            image=self._image(problems),
            description=self.description,
            problems=tuple(problems),
        )

    def _structure(self) -> Structure | None:
        from ingest.readers.structures import read_structure

        return read_structure(_only(self.structures)) if self.structures else None

    def _properties(self, level_of_theory: str, problems: list[str]) -> Iterator[PropertyData]:
        for name, cell in self.values:
            try:
                value = float(cell)
            except ValueError:
                problems.append(f"{name} is {cell!r}, which is not a number")
                continue
            if math.isfinite(value):
                yield PropertyData(name, value, level_of_theory, self.release)
            else:
                problems.append(f"{name} is {cell!r}, which is not finite")

    def _densities(
        self, level_of_theory: str | None, problems: list[str]
    ) -> tuple[Structure | None, list[DensityData]]:
        from ingest.readers.densities import read_densities

        if not self.densities:
            return None, []
        try:
            structure, densities = read_densities(_only(self.densities), reference=self.reference)
        except InputError as error:
            problems.append(str(error))
            return None, []
        # A level of theory in the file takes precedence over that of the options.
        default = normalize_level_of_theory(level_of_theory or UNSPECIFIED)
        return structure, [
            replace(density, level_of_theory=default) if density.level_of_theory == UNSPECIFIED else density
            for density in densities
        ]

    def _image(self, problems: list[str]) -> NDArray[np.float32] | None:
        from ingest.readers.images import read_image

        if not self.images:
            return None
        try:
            return read_image(_only(self.images))
        except InputError as error:
            problems.append(str(error))
            return None


class FolderSource:
    """Crystals of a dataset folder; see :class:`~ingest.sources.base.CrystalSource`.

    Parameters
    ----------
    path
        The folder.
    name
        Name of the source; default: the name of the folder, in lower case, with all characters
        except letters, digits, ``.``, ``_`` and ``-`` replaced by ``-``.
    release
        Version of the data, if there is one.

    Raises
    ------
    SourceError
        If there is no such folder, if ``properties.csv`` is missing, lacks a column or has a repeated
        or missing id, or if ``descriptions.csv`` cannot be used. The message names the file.
    ConfigurationError
        If the name of the folder contains no letter or digit.
    """

    def __init__(self, path: Path, *, name: str | None = None, release: str | None = None) -> None:
        self.path = path
        self.name = _slug(name if name is not None else path.resolve().name)
        self.release = release
        if not path.is_dir():
            raise SourceError(f"{path} is not a folder; give one with a properties.csv")
        self._table = _table(path / "properties.csv", required=("id", "formula"))
        self._descriptions = self._read_descriptions()
        self._remarks: list[str] = []

    @property
    def remarks(self) -> tuple[str, ...]:
        self._records  # noqa: B018  reading them makes the remarks
        return tuple(self._remarks)

    def __len__(self) -> int:
        return len(self._records)

    def records(self) -> Iterator[FolderRecord]:
        """Rows of ``properties.csv``, in order."""
        return iter(self._records)

    @cached_property
    def _records(self) -> list[FolderRecord]:
        # At the first use, not when the folder is opened: the database then contains the properties of users.
        table = self.path / "properties.csv"
        header, rows = self._table
        used = [column for column in header if column in PROPERTIES]
        if others := [column for column in header if column not in PROPERTIES and column not in _ID_COLUMNS]:
            self._remarks.append(
                f"{table}: unused columns: {', '.join(others)} (properties are: {', '.join(PROPERTIES)})"
            )
        descriptions = self._descriptions
        files = {part: _names(self.path / part) for part in ("structures", "densities", "images")}
        records = [
            self._record(line, row, header=header, used=used, descriptions=descriptions, files=files)
            for line, row in rows
        ]
        self._report_unused(records, descriptions, files)
        return records

    def _record(
        self,
        line: int,
        row: list[str],
        *,
        header: list[str],
        used: list[str],
        descriptions: dict[str, RawDescription],
        files: dict[str, dict[str, Path]],
    ) -> FolderRecord:
        cells = {column: cell.strip() for column, cell in zip(header, row, strict=False)}
        ident = cells["id"]
        fault = _fault(ident)
        if fault is None and len(row) != len(header):
            fault = f"line {line} of {self.path / 'properties.csv'} has {len(row)} cells, its header {len(header)}"
        if fault is not None:
            return FolderRecord(self.name, ident, cells.get("formula") or None, fault=fault)
        densities, companions = _density_files(ident, files["densities"])
        return FolderRecord(
            source=self.name,
            source_id=ident,
            formula=cells["formula"] or None,
            values=tuple((column, cells[column]) for column in used if cells[column]),
            level_of_theory=cells.get("level_of_theory") or None,
            release=self.release,
            structures=_with_suffixes(ident, files["structures"], STRUCTURE_SUFFIXES),
            densities=densities,
            companions=companions,
            images=_with_suffixes(ident, files["images"], IMAGE_SUFFIXES),
            description=descriptions.get(ident),
        )

    def _read_descriptions(self) -> dict[str, RawDescription]:
        table = self.path / "descriptions.csv"
        if not table.exists():
            return {}
        header, rows = _table(table, required=("id", "description"))
        found: dict[str, RawDescription] = {}
        for line, row in rows:
            if len(row) != len(header):
                raise SourceError(f"line {line} of {table} has {len(row)} cells, its header {len(header)}")
            cells = dict(zip(header, row, strict=True))
            if text := cells["description"].strip():
                found[cells["id"].strip()] = RawDescription(
                    text, cells.get("generator", "").strip() or self.name, cells.get("generator_version") or None
                )
        return found

    def _report_unused(
        self, records: list[FolderRecord], descriptions: dict[str, RawDescription], files: dict[str, dict[str, Path]]
    ) -> None:
        ids = {record.source_id for record in records}
        used = {
            path
            for record in records
            for path in (*record.structures, *record.densities, *record.companions, *record.images)
        }
        unused = {
            part: [
                path.name
                for path in names.values()
                if path not in used and not any(inner.is_relative_to(path) for inner in used if path.is_dir())
            ]
            for part, names in files.items()
        }
        unused["descriptions.csv"] = [ident for ident in descriptions if ident not in ids]
        for part, names in unused.items():
            if names:
                self._remarks.append(
                    f"{self.path / part}: {len(names)} without an id in properties.csv, such as {min(names)}"
                )


def _slug(name: str) -> str:
    slug = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.")
    if not slug:
        raise ConfigurationError(f"{name!r} cannot be the name of a source; give a --name of letters and digits")
    return slug


def _table(path: Path, *, required: tuple[str, ...]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and rows of a CSV file, each row with its line number; empty lines are left out.

    Cells stay text: the formula of sodium nitride is "NaN".
    """
    try:
        # Spreadsheet programs write a byte order mark.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except FileNotFoundError:
        raise SourceError(f"{path} is missing; a dataset folder needs it, with the columns id and formula") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
    if not lines:
        raise SourceError(f"{path} is empty; its first line must contain the columns: {', '.join(required)}, ...")
    header = [column.strip() for column in lines[0][1]]
    for column in required:
        if column not in header:
            raise SourceError(f"{path} has no column {column!r}; it has {', '.join(header)}")
    if repeated := [column for column in dict.fromkeys(header) if header.count(column) > 1]:
        raise SourceError(f"{path} has the column {repeated[0]!r} twice; keep one")
    id_column = header.index("id")
    lines_by_id: dict[str, int] = {}
    for line, row in lines[1:]:
        ident = row[id_column].strip() if id_column < len(row) else ""
        if not ident:
            raise SourceError(f"line {line} of {path} has no id; give every row one")
        if ident in lines_by_id:
            raise SourceError(f"{path} has the id {ident!r} twice, in lines {lines_by_id[ident]} and {line}; keep one")
        lines_by_id[ident] = line
    return header, lines[1:]


def _fault(ident: str) -> str | None:
    # An id is part of file names; it must not point outside the folder.
    if re.search(r"[/\\\x00-\x1f]", ident) or ident.startswith("."):
        return f"id {ident!r} cannot name a file; use one without '/', '\\' and a leading '.'"
    return None


def _names(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.iterdir())} if folder.is_dir() else {}


def _with_suffixes(ident: str, names: dict[str, Path], suffixes: tuple[str, ...]) -> tuple[Path, ...]:
    return tuple(names[ident + suffix] for suffix in suffixes if ident + suffix in names)


def _density_files(ident: str, names: dict[str, Path]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    found = list(_with_suffixes(ident, names, _DENSITY_SUFFIXES))
    companions = list(_with_suffixes(ident, names, _CUBE_COMPANIONS))
    if (folder := names.get(ident)) is not None and folder.is_dir():
        inside = _names(folder)
        found += _with_suffixes("CHGCAR", inside, ("", ".gz"))
        companions += _with_suffixes("CHGCAR.reference", inside, ("", ".gz"))
    return tuple(found), tuple(companions)


def _only(paths: tuple[Path, ...]) -> Path:
    if len(paths) > 1:
        raise InputError(f"{' and '.join(path.name for path in paths)} belong to one crystal; keep one")
    return paths[0]
