"""One material: what its documents say, checked, and how its density is fetched."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ingest.readers.levels import UNSPECIFIED
from ingest.sources.base import RawCrystal, RawDescription
from ingest.sources.mp.calculations import Calculations
from ingest.sources.mp.objects import (
    BUCKET,
    ObjectMissingError,
    ObjectRefusedError,
    ObjectStore,
    ObjectUnavailableError,
    decode_chgcar,
    object_key,
)
from registry.checksums import json_sha256
from registry.crystals import DensityData, PropertyData
from registry.errors import InputError
from registry.files.grids import StoredGrid
from registry.files.object_cache import CachedObject, ObjectCache

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
    cache: ObjectCache | None = None
    """Where objects are looked for first, and kept."""
    refresh: bool = False
    """Whether the store is asked if a cached object is still its own."""

    def cached(self, key: str) -> CachedObject | None:
        """The cache's entry of an object.

        An object never changes in practice: its key is the id of a calculation, which is not
        repeated under the same id. So the store is not asked about it, unless ``refresh`` says so
        (its ETag decides then), or a lock file names another checksum.

        Raises
        ------
        ObjectMissingError, ObjectUnavailableError
            With ``refresh``: if the object is gone, or the store does not tell.
        """
        found = None if self.cache is None else self.cache.find(BUCKET, key)
        if found is None or self.sha256 not in (None, found.sha256):
            return None
        if self.refresh and self.sha256 is None:
            try:
                etag = self.store.etag(key)
            except ObjectRefusedError as error:
                # Not a reason to lose what there is.
                raise ObjectUnavailableError(f"{error}; it is in the cache, run again without --refresh") from None
            return found if etag == found.etag else None
        return found


@dataclass(frozen=True, eq=False)
class _Read:
    """What came out of an object, wherever it lay."""

    structure: Structure
    densities: list[DensityData]
    keep: Callable[[], Mapping[tuple[str, str], StoredGrid]] | None


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
        read, again = self._densities(problems)
        return RawCrystal(
            formula=self.formula,
            structure=structure,
            properties=tuple(PropertyData(name, value, level, self.release) for name, value, level in self.values),
            densities=() if read is None else tuple(read.densities),
            density_structure=None if read is None else read.structure,
            relaxed_apart=True,
            derive_deformation=True,
            description=self.description,
            problems=tuple(problems),
            retry=again or self.incomplete,
            keep=None if read is None else read.keep,
        )

    def _structure(self) -> Structure:
        from pymatgen.core.structure import Structure

        if self.structure is None:
            raise InputError("its document has no structure")
        try:
            return Structure.from_dict(json.loads(self.structure))
        except Exception as error:  # noqa: BLE001  pymatgen raises whatever a strange dictionary leads to
            raise InputError(f"its document has no structure: {type(error).__name__}: {error}") from None

    def _densities(self, problems: list[str]) -> tuple[_Read | None, bool]:
        """What came out of the object, and whether another run may get more."""
        if self.density is None:
            if self.no_density is not None:
                problems.append(self.no_density)
            return None, False
        missing: ObjectMissingError | None = None
        try:
            for task_id, level in self.density.candidates:
                try:
                    return _read(self.density, task_id, level), False
                except ObjectMissingError as error:
                    missing = missing or error  # an older calculation may have one
        except _OtherObjectError as error:
            problems.append(str(error))
            return None, False
        except InputError as error:  # refused or damaged: the next run tries again
            problems.append(str(error))
            return None, True
        problems.append(str(missing))
        return None, False


class _OtherObjectError(InputError):
    """The object is not the one of the lock file."""


def record_of(
    source: str,
    document: Mapping[str, Any],
    calculations: Calculations,
    *,
    release: str | None,
    description: RawDescription | None = None,
    store: ObjectStore | None = None,
    cache: ObjectCache | None = None,
    refresh: bool = False,
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
    cache
        Where they are looked for first.
    refresh
        Whether the store is asked if a cached one is still its own.
    pin
        Task id and checksum that a lock file names; task None: there is no density.
    """
    problems: list[str] = []
    structure = document.get("structure")
    formula = document.get("formula_pretty")
    density, why = None, None
    if store is not None:
        density, why = _density(calculations, store, pin)
        density = density and replace(density, cache=cache, refresh=refresh)
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


def _read(density: Density, task_id: str, level: str) -> _Read:
    """Structure and densities of a calculation's object: the cache's, or the store's."""
    key = object_key(task_id)
    provenance = f"Materials Project, VASP, task {task_id} ({level} static)"
    found = density.cached(key)
    if found is not None and (read := _from_cache(density, found, task_id, level, provenance)) is not None:
        return read
    fetched = density.store.fetch(key)
    if density.sha256 not in (None, fetched.sha256):
        raise _OtherObjectError(
            f"density object {fetched.key} is not the one of the lock file: "
            f"its sha256 is {fetched.sha256}, that of the lock {density.sha256}"
        )
    structure, densities = decode_chgcar(fetched.data, level_of_theory=level, provenance=provenance)
    came = CachedObject(BUCKET, key, fetched.etag, fetched.sha256, len(fetched.data), {}, {})
    origin = _origin(task_id, came)
    densities = [replace(one, origin=origin) for one in densities]
    cache = density.cache
    return _Read(structure, densities, None if cache is None else lambda: _keep(cache, came, structure, densities))


def _from_cache(density: Density, found: CachedObject, task_id: str, level: str, provenance: str) -> _Read | None:
    from pymatgen.core.structure import Structure

    assert density.cache is not None
    grids = density.cache.load(found)
    if grids is None:
        return None
    origin = _origin(task_id, found)
    densities = [
        DensityData(kind, level, values, lattice, provenance, origin) for kind, (values, lattice) in grids.items()
    ]
    stored = {(kind, level): grid for kind, grid in found.grids.items()}
    return _Read(Structure.from_dict(found.structure), densities, lambda: stored)


def _keep(
    cache: ObjectCache, came: CachedObject, structure: Structure, densities: list[DensityData]
) -> dict[tuple[str, str], StoredGrid]:
    stored = {(one.kind, one.level_of_theory): cache.grids.put(one.values, one.lattice) for one in densities}
    # Through JSON: numpy numbers would not survive it otherwise.
    content = json.loads(structure.to_json())
    cache.add(replace(came, structure=content, grids={kind: grid for (kind, _), grid in stored.items()}))
    return stored


def _origin(task_id: str, found: CachedObject) -> dict[str, Any]:
    return {
        "task_id": task_id,
        "bucket": found.bucket,
        "key": found.key,
        "etag": found.etag,
        "sha256": found.sha256,
        "bytes": found.bytes,
    }


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
