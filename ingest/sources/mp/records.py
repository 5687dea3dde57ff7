"""One material: what its documents say, checked, and how its density is fetched."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ingest.readers.levels import UNSPECIFIED
from ingest.sources.base import RawCrystal, RawDescription
from ingest.sources.mp.calculations import Calculations
from ingest.sources.mp.objects import (
    BUCKET,
    FetchedObject,
    ObjectMissingError,
    ObjectStore,
    decode_chgcar,
    object_key,
)
from registry.checksums import json_sha256
from registry.crystals import DensityData, PropertyData
from registry.errors import InputError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["FIELDS", "THERMODYNAMICS", "Density", "MpRecord", "record_of"]

FIELDS = (
    "material_id",
    "formula_pretty",
    "structure",
    "symmetry",
    "last_updated",
    "origins",
    "formation_energy_per_atom",
    "energy_above_hull",
    "efermi",
    "band_gap",
    "total_magnetization",
    "bulk_modulus",
    "shear_modulus",
)
"""Fields of a summary document that are asked for."""

THERMODYNAMICS = "GGA_GGA+U_R2SCAN"
"""Level of theory of the energies in a summary: the project's builder takes them from this mixing scheme."""

_ENERGIES = ("formation_energy_per_atom", "energy_above_hull")
# Property: names under which the document says which calculation it comes from.
_ORIGINS = {
    "efermi": ("electronic_structure", "dos", "bandstructure"),
    "band_gap": ("electronic_structure", "dos", "bandstructure"),
    "total_magnetization": ("magnetism",),
    "k_vrh": ("elasticity",),
    "g_vrh": ("elasticity",),
}
_MODULI = {"k_vrh": "bulk_modulus", "g_vrh": "shear_modulus"}
# The project's elastic tensors are all PBE (de Jong et al., Scientific Data 2, 150009 (2015)).
_ELASTIC = "GGA"


@dataclass(frozen=True)
class Density:
    """Where a material's density may come from."""

    store: ObjectStore
    candidates: tuple[tuple[str, str], ...]
    """(task id, level of theory), the best first."""
    sha256: str | None = None
    """Of the object that a lock file names; no other one is taken."""


@dataclass(frozen=True)
class MpRecord:
    """One material; see :class:`~ingest.sources.base.SourceRecord`."""

    source: str
    source_id: str
    formula: str | None = None
    structure: str | None = None
    """JSON of ``Structure.as_dict()``; text, so that thousands of records stay small."""
    values: tuple[tuple[str, float, str], ...] = ()
    """(property, value, level of theory)."""
    release: str | None = None
    description: RawDescription | None = None
    density: Density | None = None
    no_density: str | None = None
    """Why there is none, where one was wanted."""
    problems: tuple[str, ...] = ()
    incomplete: bool = False
    """Whether the service left something out that another run may get."""
    fault: str | None = None
    """What makes the material unusable."""

    @property
    def has_description(self) -> bool:
        return self.description is not None

    def input_sha256(self) -> str:
        """SHA-256 of what the documents say, and of the tasks and the lock that decide on the density.

        When the project merely rebuilt a document, nothing has changed: neither its date nor the
        database's version counts.
        """
        density = self.density
        text = self.description
        return json_sha256(
            {
                "id": self.source_id,
                "formula": self.formula,
                "structure": self.structure,
                "values": self.values,
                "text": text and (text.text, text.generator_version),
                "density": density and [density.candidates, density.sha256],
                "no density": self.no_density,
                "problems": self.problems,
                "fault": self.fault,
            }
        )

    def read(self, *, level_of_theory: str | None = None) -> RawCrystal:
        """Fetch the density; see :meth:`ingest.sources.base.SourceRecord.read`.

        Raises
        ------
        InputError
            If the material, or its structure, cannot be used.
        ObjectUnavailableError
            If the density could not be downloaded just now.
        """
        if self.fault is not None:
            raise InputError(self.fault)
        problems = list(self.problems)
        structure = self._structure()
        own, densities, again = self._densities(problems)
        return RawCrystal(
            formula=self.formula,
            structure=structure,
            properties=tuple(PropertyData(name, value, level, self.release) for name, value, level in self.values),
            densities=tuple(densities),
            density_structure=own,
            relaxed_apart=True,
            derive_deformation=True,
            description=self.description,
            problems=tuple(problems),
            retry=again or self.incomplete,
        )

    def _structure(self) -> Structure:
        from pymatgen.core.structure import Structure

        if self.structure is None:
            raise InputError("its document has no structure")
        try:
            return Structure.from_dict(json.loads(self.structure))
        except Exception as error:  # noqa: BLE001  pymatgen raises whatever a strange dictionary leads to
            raise InputError(f"its document has no structure: {type(error).__name__}: {error}") from None

    def _densities(self, problems: list[str]) -> tuple[Structure | None, list[DensityData], bool]:
        """Structure and densities of the object, and whether another run may get more."""
        if self.density is None:
            if self.no_density is not None:
                problems.append(self.no_density)
            return None, [], False
        try:
            task_id, level, fetched = self._fetch(self.density)
            if self.density.sha256 not in (None, fetched.sha256):
                problems.append(
                    f"density object {fetched.key} is not the one of the lock file: "
                    f"its sha256 is {fetched.sha256}, that of the lock {self.density.sha256}"
                )
                return None, [], False
            provenance = f"Materials Project, VASP, task {task_id} ({level} static)"
            structure, densities = decode_chgcar(fetched.data, level_of_theory=level, provenance=provenance)
        except ObjectMissingError as error:
            problems.append(str(error))
            return None, [], False
        except InputError as error:  # refused or damaged: the next run tries again
            problems.append(str(error))
            return None, [], True
        origin = {
            "task_id": task_id,
            "bucket": BUCKET,
            "key": fetched.key,
            "etag": fetched.etag,
            "sha256": fetched.sha256,
            "bytes": len(fetched.data),
        }
        return structure, [replace(density, origin=origin) for density in densities], False

    def _fetch(self, density: Density) -> tuple[str, str, FetchedObject]:
        """The object of the first calculation that has one."""
        missing: ObjectMissingError | None = None
        for task_id, level in density.candidates:
            try:
                return task_id, level, density.store.fetch(object_key(task_id))
            except ObjectMissingError as error:
                missing = missing or error
        assert missing is not None, "there is a candidate"
        raise missing


def record_of(
    source: str,
    document: Mapping[str, Any],
    calculations: Calculations,
    *,
    release: str | None,
    description: RawDescription | None = None,
    store: ObjectStore | None = None,
    pin: tuple[str | None, str | None] | None = None,
) -> MpRecord:
    """The record of a summary document; what is wrong with it becomes the record's problems.

    Parameters
    ----------
    source
        Name of the source.
    document
        As the service sent it, with :data:`FIELDS`.
    calculations
        The material's calculations.
    release
        Version of the project's database.
    description
        The project's text.
    store
        Where densities come from; None: none are wanted.
    pin
        Task id and checksum that a lock file names; task None: there is no density.
    """
    problems: list[str] = []
    structure = document.get("structure")
    formula = document.get("formula_pretty")
    density, why = None, None
    if store is not None:
        density, why = _density(calculations, store, pin)
    return MpRecord(
        source,
        str(document["material_id"]),
        formula=formula if isinstance(formula, str) else None,
        structure=json.dumps(structure, sort_keys=True) if isinstance(structure, dict) and structure else None,
        values=tuple(_values(document, calculations, problems)),
        release=release,
        description=description,
        density=density,
        no_density=why,
        problems=tuple(problems),
        incomplete=store is not None and not calculations.known,
    )


def _density(
    calculations: Calculations, store: ObjectStore, pin: tuple[str | None, str | None] | None
) -> tuple[Density | None, str | None]:
    if pin is None:
        why = calculations.why_no_density
        tasks: tuple[str, ...] = calculations.candidates
        sha256 = None
    else:
        task, sha256 = pin
        why = "no density: the lock file names none" if task is None else None
        tasks = () if task is None else (task,)
    if why is not None:
        return None, why
    return Density(store, tuple((task, calculations.level_of(task)) for task in tasks), sha256), None


def _values(
    document: Mapping[str, Any], calculations: Calculations, problems: list[str]
) -> list[tuple[str, float, str]]:
    values = []
    for name in (*_ENERGIES, *_ORIGINS):
        field = _MODULI.get(name)
        value = document.get(name) if field is None else document.get(field)
        if field is not None and isinstance(value, dict):
            value = value.get("vrh")  # null where the tensor could not be averaged
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            problems.append(f"{name} is {value!r}, which is not a number")
            continue
        level = THERMODYNAMICS if name in _ENERGIES else _level(name, document, calculations)
        values.append((name, float(value), level))
    return values


def _level(name: str, document: Mapping[str, Any], calculations: Calculations) -> str:
    origins = document.get("origins")
    for origin in origins if isinstance(origins, list) else ():
        if isinstance(origin, dict) and origin.get("name") in _ORIGINS[name] and origin.get("task_id"):
            try:
                level = calculations.level_of(str(origin["task_id"]))
            except ValueError:
                continue
            if level != UNSPECIFIED:
                return level
    return _ELASTIC if name in _MODULI else UNSPECIFIED
