"""Records of Materials Project materials: checked documents, and the download of the density."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ingest.readers.levels_of_theory import UNSPECIFIED
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

__all__ = ["FIELDS", "THERMODYNAMICS", "DensityLocation", "Downloads", "MpRecord", "make_record"]

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
"""Requested fields of a summary document."""

THERMODYNAMICS = "GGA_GGA+U_R2SCAN"
"""Level of theory of the energies in a summary, which the Materials Project takes from this mixing scheme."""

_ENERGIES = ("formation_energy_per_atom", "energy_above_hull")
# Property: names under which the document lists the calculation that it comes from.
_ORIGINS = {
    "efermi": ("electronic_structure", "dos", "bandstructure"),
    "band_gap": ("electronic_structure", "dos", "bandstructure"),
    "total_magnetization": ("magnetism",),
    "k_vrh": ("elasticity",),
    "g_vrh": ("elasticity",),
}
_MODULI = {"k_vrh": "bulk_modulus", "g_vrh": "shear_modulus"}
# The elastic tensors of the Materials Project are all PBE (de Jong et al., Scientific Data 2, 150009 (2015)).
_ELASTIC_LEVEL_OF_THEORY = "GGA"


@dataclass(frozen=True)
class DensityLocation:
    """Store, cache and candidate calculations of a material's density."""

    store: ObjectStore
    candidates: tuple[tuple[str, str], ...]
    """(task id, level of theory), the best first."""
    sha256: str | None = None
    """Checksum in the lock file; an object with another one is not used."""
    cache: ObjectCache | None = None
    """Cache of downloaded objects; None: no cache."""
    refresh: bool = False
    """Whether a cached object is compared with the store's ETag."""

    def cached(self, key: str) -> CachedObject | None:
        """Entry of an object in the cache.

        An object does not change in practice: its key is the id of a calculation, which is not
        repeated under the same id. The store is therefore not requested, unless ``refresh`` is set
        (the ETag decides then), or a lock file contains another checksum.

        Raises
        ------
        ObjectMissingError, ObjectUnavailableError
            With ``refresh``: if the object no longer exists, or the store does not answer.
        """
        found = None if self.cache is None else self.cache.find(BUCKET, key)
        if found is None or self.sha256 not in (None, found.sha256):
            return None
        if self.refresh and self.sha256 is None:
            try:
                etag = self.store.etag(key)
            except ObjectRefusedError as error:
                # The cached object stays usable.
                raise ObjectUnavailableError(
                    f"{error}; the object is in the cache, run again without --refresh"
                ) from None
            return found if etag == found.etag else None
        return found


@dataclass(frozen=True, eq=False)
class _DensityContent:
    """Content of a density object, from the cache or from the store."""

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
    """JSON of ``Structure.as_dict()``; a text, so that thousands of records stay small."""
    values: tuple[tuple[str, float, str], ...] = ()
    """(property, value, level of theory)."""
    release: str | None = None
    description: RawDescription | None = None
    density: DensityLocation | None = None
    no_density: str | None = None
    """Reason why there is no density although densities are requested."""
    problems: tuple[str, ...] = ()
    incomplete: bool = False
    """Whether a document was missing that a later run may get."""
    fault: str | None = None
    """Reason why the material is unusable."""

    @property
    def has_description(self) -> bool:
        return self.description is not None

    def input_sha256(self) -> str:
        """SHA-256 of the used fields of the documents, and of the tasks and the lock that select the density.

        The date of a document and the version of the database are not included: a document that
        was only rebuilt is unchanged.
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
        """Download the density; see :meth:`ingest.sources.base.SourceRecord.read`.

        Raises
        ------
        InputError
            If the material, or its structure, cannot be used.
        ObjectUnavailableError
            If the density could not be downloaded now.
        """
        if self.fault is not None:
            raise InputError(self.fault)
        problems = list(self.problems)
        structure = self._structure()
        content, retry = self._densities(problems)
        return RawCrystal(
            formula=self.formula,
            structure=structure,
            properties=tuple(
                PropertyData(name, value, level_of_theory, self.release) for name, value, level_of_theory in self.values
            ),
            densities=() if content is None else tuple(content.densities),
            density_structure=None if content is None else content.structure,
            relaxed_apart=True,
            derive_deformation=True,
            description=self.description,
            problems=tuple(problems),
            retry=retry or self.incomplete,
            keep=None if content is None else content.keep,
        )

    def _structure(self) -> Structure:
        from pymatgen.core.structure import Structure

        if self.structure is None:
            raise InputError("its document has no structure")
        try:
            return Structure.from_dict(json.loads(self.structure))
        except Exception as error:  # noqa: BLE001  pymatgen raises errors of many types for an invalid dictionary
            raise InputError(f"its document has no structure: {type(error).__name__}: {error}") from None

    def _densities(self, problems: list[str]) -> tuple[_DensityContent | None, bool]:
        """Content of the density object, and whether a later run may get more."""
        if self.density is None:
            if self.no_density is not None:
                problems.append(self.no_density)
            return None, False
        missing: ObjectMissingError | None = None
        try:
            for task_id, level_of_theory in self.density.candidates:
                try:
                    return _read(self.density, task_id, level_of_theory), False
                except ObjectMissingError as error:
                    missing = missing or error  # an older calculation may have an object
        except _ChecksumError as error:
            problems.append(str(error))
            return None, False
        except InputError as error:  # refused or damaged: the next run reads it again
            problems.append(str(error))
            return None, True
        problems.append(str(missing))
        return None, False


class _ChecksumError(InputError):
    """The checksum of the object differs from that in the lock file."""


@dataclass(frozen=True)
class Downloads:
    """Access to density objects."""

    store: ObjectStore
    cache: ObjectCache | None = None
    """Cache of downloaded objects."""
    refresh: bool = False
    """Whether a cached object is compared with the store's ETag."""


def make_record(
    source: str,
    document: Mapping[str, Any],
    calculations: Calculations,
    *,
    release: str | None,
    description: RawDescription | None = None,
    downloads: Downloads | None = None,
    locked: tuple[str | None, str | None] | None = None,
) -> MpRecord:
    """Make the record of a summary document; invalid values become problems of the record.

    Parameters
    ----------
    source
        Name of the source.
    document
        Document of the service, with :data:`FIELDS`.
    calculations
        Calculations of the material.
    release
        Version of the Materials Project's database.
    description
        Text of the Materials Project.
    downloads
        Access to the densities; None: no densities.
    locked
        Task id and checksum in a lock file; task None: there is no density.
    """
    problems: list[str] = []
    structure = document.get("structure")
    formula = document.get("formula_pretty")
    density, reason = None, None
    if downloads is not None:
        density, reason = _locate(calculations, downloads.store, locked)
        density = density and replace(density, cache=downloads.cache, refresh=downloads.refresh)
    return MpRecord(
        source,
        str(document["material_id"]),
        formula=formula if isinstance(formula, str) else None,
        structure=json.dumps(structure, sort_keys=True) if isinstance(structure, dict) and structure else None,
        values=tuple(_values(document, calculations, problems)),
        release=release,
        description=description,
        density=density,
        no_density=reason,
        problems=tuple(problems),
        incomplete=downloads is not None and not calculations.listed,
    )


def _read(density: DensityLocation, task_id: str, level_of_theory: str) -> _DensityContent:
    """Structure and densities of a calculation's object, from the cache or from the store."""
    key = object_key(task_id)
    provenance = f"Materials Project, VASP, task {task_id} ({level_of_theory} static)"
    found = density.cached(key)
    if found is not None:
        content = _from_cache(density, found, task_id, level_of_theory, provenance)
        if content is not None:
            return content
    fetched = density.store.fetch(key)
    if density.sha256 not in (None, fetched.sha256):
        raise _ChecksumError(
            f"density object {fetched.key} is not the one of the lock file: "
            f"its sha256 is {fetched.sha256}, that of the lock {density.sha256}"
        )
    structure, densities = decode_chgcar(fetched.data, level_of_theory=level_of_theory, provenance=provenance)
    downloaded = CachedObject(BUCKET, key, fetched.etag, fetched.sha256, len(fetched.data), {}, {})
    origin = _origin(task_id, downloaded)
    densities = [replace(one, origin=origin) for one in densities]
    cache = density.cache
    return _DensityContent(
        structure, densities, None if cache is None else lambda: _keep(cache, downloaded, structure, densities)
    )


def _from_cache(
    density: DensityLocation, found: CachedObject, task_id: str, level_of_theory: str, provenance: str
) -> _DensityContent | None:
    from pymatgen.core.structure import Structure

    assert density.cache is not None
    grids = density.cache.load(found)
    if grids is None:
        return None
    origin = _origin(task_id, found)
    densities = [
        DensityData(kind, level_of_theory, values, lattice, provenance, origin)
        for kind, (values, lattice) in grids.items()
    ]
    stored = {(kind, level_of_theory): grid for kind, grid in found.grids.items()}
    return _DensityContent(Structure.from_dict(found.structure), densities, lambda: stored)


def _keep(
    cache: ObjectCache, downloaded: CachedObject, structure: Structure, densities: list[DensityData]
) -> dict[tuple[str, str], StoredGrid]:
    stored = {(one.kind, one.level_of_theory): cache.grids.put(one.values, one.lattice) for one in densities}
    # Through JSON, which converts numpy numbers.
    content = json.loads(structure.to_json())
    cache.add(replace(downloaded, structure=content, grids={kind: grid for (kind, _), grid in stored.items()}))
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


def _locate(
    calculations: Calculations, store: ObjectStore, locked: tuple[str | None, str | None] | None
) -> tuple[DensityLocation | None, str | None]:
    """Location of the density, or the reason why there is none."""
    if locked is None:
        reason = calculations.no_density_reason
        tasks: tuple[str, ...] = calculations.candidates
        sha256 = None
    else:
        task, sha256 = locked
        reason = "no density: the lock file names none" if task is None else None
        tasks = () if task is None else (task,)
    if reason is not None:
        return None, reason
    candidates = tuple((task, calculations.level_of_theory(task)) for task in tasks)
    return DensityLocation(store, candidates, sha256), None


def _values(
    document: Mapping[str, Any], calculations: Calculations, problems: list[str]
) -> list[tuple[str, float, str]]:
    values = []
    for name in (*_ENERGIES, *_ORIGINS):
        field = _MODULI.get(name)
        value = document.get(name) if field is None else document.get(field)
        if field is not None and isinstance(value, dict):
            value = value.get("vrh")  # null where the tensor cannot be averaged
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            problems.append(f"{name} is {value!r}, which is not a number")
            continue
        energy = name in _ENERGIES
        level_of_theory = THERMODYNAMICS if energy else _level_of_theory(name, document, calculations)
        values.append((name, float(value), level_of_theory))
    return values


def _level_of_theory(name: str, document: Mapping[str, Any], calculations: Calculations) -> str:
    origins = document.get("origins")
    for origin in origins if isinstance(origins, list) else ():
        if isinstance(origin, dict) and origin.get("name") in _ORIGINS[name] and origin.get("task_id"):
            try:
                level_of_theory = calculations.level_of_theory(str(origin["task_id"]))
            except ValueError:
                continue
            if level_of_theory != UNSPECIFIED:
                return level_of_theory
    return _ELASTIC_LEVEL_OF_THEORY if name in _MODULI else UNSPECIFIED
