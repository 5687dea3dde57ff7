"""Crystals: what ingestion hands over, how it is written, how it is found again.

The dataclasses are the currency between ``ingest``, ``registry`` and ``train``: they are
picklable, so that worker processes can make them. :func:`write_crystal` keeps the rules:
what is the same is not written again, what differs becomes a new revision, and the revision
that a split or a model used stays as it was.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, delete, func, null, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.errors import AmbiguousIdError, InputError, NotFoundError
from registry.files.grids import GridStore, StoredGrid
from registry.formulas import chemical_system, composition_key
from registry.image_recipes import ensure_recipe, ensure_recipes, find_recipe, recipe_sha256
from registry.models import (
    Crystal,
    CrystalRevision,
    Density,
    Description,
    LevelOfTheory,
    PropertyValue,
    SliceImage,
    SliceInput,
)
from registry.properties import DEFAULT_PREFERENCE, LEVELS_OF_THEORY, suspect_reason

__all__ = [
    "CrystalData",
    "DensityData",
    "DescriptionData",
    "PropertyData",
    "ResolvedCrystal",
    "SliceData",
    "WrittenCrystal",
    "ensure_recipe",
    "find_recipe",
    "material_key_of",
    "recipe_sha256",
    "resolve",
    "write_crystal",
]

_EXTERNAL_ID = re.compile(r"(mp|mvc)-[0-9]+")


@dataclass(frozen=True)
class PropertyData:
    """A property's value, in the unit that ``registry.properties`` gives it."""

    name: str
    value: float
    level_of_theory: str
    source_release: str | None = None


@dataclass(frozen=True, eq=False)
class DensityData:
    """An electron charge density on a periodic grid."""

    kind: str
    """total, spin or deformation."""
    level_of_theory: str
    values: NDArray[np.floating[Any]]
    """Shape (n1, n2, n3), along the lattice vectors, without a repeated end point [e/Å^3]."""
    lattice: NDArray[np.float64]
    """Shape (3, 3), lattice vectors as rows [Å]."""
    provenance: str | None = None
    """How it was calculated, as its file says."""
    origin: dict[str, Any] | None = None
    """What it was downloaded from, JSON values: task_id, bucket, key, etag, sha256, bytes; slim, native_grid."""
    structure: dict[str, Any] | None = None
    """Atoms in the grid's cell, as pymatgen's ``Structure.as_dict()`` [Å]; None where that is the crystal's own."""

    @property
    def volume(self) -> float:
        """Volume of the cell [Å^3]."""
        return float(abs(np.linalg.det(np.asarray(self.lattice, dtype=np.float64))))

    @property
    def n_electrons(self) -> float:
        """Integral over the cell [e]; for a spin density the moment [mu_B]."""
        return float(np.mean(self.values, dtype=np.float64)) * self.volume


@dataclass(frozen=True, eq=False)
class SliceData:
    """A slice image and how it was made."""

    recipe_name: str
    recipe_parameters: dict[str, Any]
    """JSON values; their hash is the recipe's version."""
    unit: str | None
    """Unit of the pixels; None for imported and fourier images."""
    pixels: NDArray[np.float32]
    """Shape (C, H, W)."""
    inputs: tuple[tuple[str, str], ...] = ()
    """(density kind, level of theory) per channel; empty for an imported image."""


@dataclass(frozen=True)
class DescriptionData:
    """A text at one text level: formula, keywords or all."""

    text_level: str
    text: str
    generator: str
    generator_version: str | None = None


@dataclass(frozen=True, eq=False)
class CrystalData:
    """Everything that one source says of one crystal."""

    source: str
    source_id: str
    formula: str
    """Reduced formula."""
    structure: dict[str, Any] | None
    """pymatgen ``Structure.as_dict()`` [Å]; None where only the formula is known."""
    space_group_number: int | None
    space_group_symbol: str | None
    prototype: str | None
    """Anonymous formula, Pearson symbol and space group number, as ``AB-cF8-225``."""
    n_sites: int | None
    volume: float | None
    """Of the stored cell [Å^3]."""
    content_sha256: str
    """Of structure, properties and densities as they came."""
    properties: tuple[PropertyData, ...] = ()
    densities: tuple[DensityData, ...] = ()
    slices: tuple[SliceData, ...] = ()
    descriptions: tuple[DescriptionData, ...] = ()
    material_key: str | None = None
    """What this crystal shares with itself under other sources; None: found by :func:`material_key_of`."""
    stored: Mapping[tuple[str, str], StoredGrid] = field(default_factory=dict)
    """By (kind, level of theory): grids of :attr:`densities` that were put into a store already."""


@dataclass(frozen=True)
class WrittenCrystal:
    """What :func:`write_crystal` did: the revision that is current now, and how it came about."""

    revision_id: int
    outcome: str
    """created, updated or unchanged."""


@dataclass(frozen=True)
class ResolvedCrystal:
    """A crystal and its current revision."""

    crystal_id: int
    revision_id: int
    source: str
    source_id: str
    formula: str


def write_crystal(session: Session, data: CrystalData, *, run_id: int, grids: GridStore) -> WrittenCrystal:
    """Write a crystal, or what is new of it.

    Same content as the current revision: slices and descriptions that are missing or that
    differ are written to it, the rest stays. Other content: a new revision becomes current.
    Implausible property values are kept and marked suspect. Levels of theory that are not
    known yet are added.

    Parameters
    ----------
    data
        What the source says of the crystal.
    run_id
        The run of ingestion that this belongs to.
    grids
        Where the density grids go; a grid that is there already is not written again.

    Raises
    ------
    InputError
        If a value cannot be stored; raised before anything is written.
    ConfigurationError
        If the grid store cannot be written to.
    """
    prepared = _prepare(data)
    current = session.execute(_current_revision(data.source, data.source_id)).one_or_none()
    if current is not None and current.content_sha256 == data.content_sha256:
        changed = _write_derived(session, current.revision_id, data, prepared)
        return WrittenCrystal(current.revision_id, "updated" if changed else "unchanged")

    stored = [_store(data, density, grids) for density in data.densities]
    if current is None:
        crystal_id = session.scalars(
            insert(Crystal)
            .values(source=data.source, source_id=data.source_id, material_key=_shared_key(session, data))
            .returning(Crystal.id)
        ).one()
        number = 1
    else:
        crystal_id, number = current.crystal_id, current.n + 1
        session.execute(
            update(CrystalRevision).where(CrystalRevision.id == current.revision_id).values(is_current=False)
        )
    revision_id = session.scalars(
        insert(CrystalRevision)
        .values(
            crystal_id=crystal_id,
            n=number,
            is_current=True,
            content_sha256=data.content_sha256,
            run_id=run_id,
            formula=data.formula,
            chemsys=prepared.chemsys,
            elements=prepared.elements,
            space_group_number=data.space_group_number,
            space_group_symbol=data.space_group_symbol,
            prototype=data.prototype,
            n_sites=data.n_sites,
            volume=data.volume,
            structure=null() if data.structure is None else data.structure,
        )
        .returning(CrystalRevision.id)
    ).one()
    _add_levels(session, data)
    if prepared.properties:
        session.execute(insert(PropertyValue), [{"revision_id": revision_id, **row} for row in prepared.properties])
    if data.densities:
        session.execute(
            insert(Density),
            [
                {
                    "revision_id": revision_id,
                    "kind": density.kind,
                    "level_of_theory": density.level_of_theory,
                    "grid_shape": list(density.values.shape),
                    "n_electrons": density.n_electrons,
                    "uri": grid.uri,
                    "sha256": grid.sha256,
                    "provenance": density.provenance,
                    "origin": density.origin,
                    "structure": density.structure,
                }
                for density, grid in zip(data.densities, stored, strict=True)
            ],
        )
    _write_derived(session, revision_id, data, prepared)
    return WrittenCrystal(revision_id, "created" if current is None else "updated")


def material_key_of(source_id: str, data: CrystalData) -> str:
    """What a crystal shares with itself under other sources.

    The id itself where it is one of the Materials Project's (``mp-...``, ``mvc-...``); else a
    fingerprint of composition, space group and prototype. The volume is left out on purpose: one
    material at two levels of theory, or under pressure, must not be split between training and
    holdout.
    """
    if data.material_key:
        return data.material_key
    if _EXTERNAL_ID.fullmatch(source_id):
        return source_id
    parts = (composition_key(data.formula), data.space_group_number, data.prototype)
    return f"fingerprint-{json_sha256(parts)[:32]}"


def resolve(session: Session, ident: str) -> ResolvedCrystal:
    """Find a crystal by its id, or by ``source:id``.

    Raises
    ------
    NotFoundError
        If there is none; the message names near ids.
    AmbiguousIdError
        If several sources have it; the message names them.
    """
    source, _, source_id = ident.partition(":")
    rows = session.execute(
        select(
            Crystal.id,
            CrystalRevision.id,
            Crystal.source,
            Crystal.source_id,
            CrystalRevision.formula,
        )
        .join(CrystalRevision)
        .where(
            CrystalRevision.is_current,
            or_(Crystal.source_id == ident, tuple_(Crystal.source, Crystal.source_id) == (source, source_id)),
        )
        .order_by(Crystal.source)
    ).all()
    if len(rows) == 1:
        return ResolvedCrystal(*rows[0])
    if rows:
        names = " or ".join(repr(f"{row.source}:{row.source_id}") for row in rows)
        raise AmbiguousIdError(f"crystal {ident!r} is in {len(rows)} sources; say {names}")
    raise NotFoundError(f"no crystal {ident!r}; {_near_ids(session, source_id or ident)}")


def _store(data: CrystalData, density: DensityData, grids: GridStore) -> StoredGrid:
    there = data.stored.get((density.kind, density.level_of_theory))
    # It may be in another store, and compressing a grid twice takes seconds.
    return there if there is not None and grids.holds(there) else grids.put(density.values, density.lattice)


@dataclass(frozen=True)
class _Prepared:
    """What follows from the data alone, found before the first statement."""

    elements: list[str]
    chemsys: str
    properties: list[dict[str, Any]]
    slices: dict[str, tuple[SliceData, dict[str, Any]]]
    """Each slice with its row, by the checksum of its recipe's parameters."""


def _prepare(data: CrystalData) -> _Prepared:
    elements, chemsys = chemical_system(data.formula)
    properties = []
    for value in data.properties:
        if not math.isfinite(value.value):
            raise InputError(f"{value.name} of {data.source_id} is {value.value}; leave out what is not known")
        reason = suspect_reason(value.name, value.value)
        properties.append(
            {
                "property": value.name,
                "level_of_theory": value.level_of_theory,
                "value": value.value,
                "source_release": value.source_release,
                "suspect": reason is not None,
                "suspect_reason": reason,
            }
        )
    slices = {
        recipe_sha256(image.recipe_parameters): (image, _slice_row(data.source_id, image)) for image in data.slices
    }
    return _Prepared(elements, chemsys, properties, slices)


def _slice_row(source_id: str, image: SliceData) -> dict[str, Any]:
    pixels = np.ascontiguousarray(image.pixels, dtype="<f4")
    if pixels.ndim != 3 or not pixels.size or not np.isfinite(pixels).all():
        raise InputError(
            f"image {image.recipe_name!r} of {source_id} has shape {pixels.shape} or values that are not finite;"
            " give finite (channels, height, width)"
        )
    if image.inputs and len(image.inputs) != pixels.shape[0]:
        raise InputError(
            f"image {image.recipe_name!r} of {source_id} has {pixels.shape[0]} channels from {len(image.inputs)}"
            " densities; name one density per channel"
        )
    exact = pixels.astype(np.float64)
    channels, height, width = pixels.shape
    return {
        "channels": channels,
        "height": height,
        "width": width,
        "pixels": pixels,
        "pixel_min": exact.min(axis=(1, 2)).tolist(),
        "pixel_max": exact.max(axis=(1, 2)).tolist(),
        "pixel_mean": exact.mean(axis=(1, 2)).tolist(),
        "pixel_std": exact.std(axis=(1, 2)).tolist(),
        "sha256": hashlib.sha256(pixels.tobytes()).hexdigest(),
    }


def _current_revision(source: str, source_id: str) -> Select[int, int, int, str]:
    return (
        select(
            Crystal.id.label("crystal_id"),
            CrystalRevision.id.label("revision_id"),
            CrystalRevision.n,
            CrystalRevision.content_sha256,
        )
        .join(CrystalRevision)
        .where(Crystal.source == source, Crystal.source_id == source_id, CrystalRevision.is_current)
        .with_for_update(of=Crystal)
    )


def _shared_key(session: Session, data: CrystalData) -> str:
    """The material key of a new crystal: its own, or that of the same material under another name.

    Of two ids of the Materials Project neither gives way to the other.
    """
    own = material_key_of(data.source_id, data)
    if data.material_key or data.structure is None or data.prototype is None:
        return own
    known = session.scalars(
        select(Crystal.material_key)
        .join(CrystalRevision)
        .where(
            CrystalRevision.is_current,
            CrystalRevision.chemsys == chemical_system(data.formula)[1],
            CrystalRevision.formula == data.formula,
            CrystalRevision.space_group_number == data.space_group_number,
            CrystalRevision.prototype == data.prototype,
        )
        .order_by(Crystal.id)
    ).all()
    fingerprints = [key for key in known if not _EXTERNAL_ID.fullmatch(key)]
    return own if own in known else next(iter(fingerprints if _EXTERNAL_ID.fullmatch(own) else known), own)


def _add_levels(session: Session, data: CrystalData) -> None:
    named = {value.level_of_theory for value in data.properties}
    named |= {density.level_of_theory for density in data.densities}
    if unknown := sorted(named - LEVELS_OF_THEORY.keys()):
        description = f"named by the source {data.source}"
        session.execute(
            insert(LevelOfTheory).on_conflict_do_nothing(),
            [{"name": name, "preference": DEFAULT_PREFERENCE, "description": description} for name in unknown],
        )


def _write_derived(session: Session, revision_id: int, data: CrystalData, prepared: _Prepared) -> bool:
    """Write the slices and descriptions that the revision lacks or has otherwise; whether there were any."""
    images = _write_slices(session, revision_id, prepared.slices)
    texts = _write_descriptions(session, revision_id, data.descriptions)
    return images or texts


def _write_slices(session: Session, revision_id: int, slices: dict[str, tuple[SliceData, dict[str, Any]]]) -> bool:
    if not slices:
        return False
    recipes = ensure_recipes(
        session,
        {sha: (image.recipe_name, image.recipe_parameters, image.unit) for sha, (image, _) in slices.items()},
    )
    there = dict(
        session.execute(
            select(SliceImage.recipe_id, SliceImage.sha256).where(SliceImage.revision_id == revision_id)
        ).all()
    )
    rows, inputs = [], []
    for recipe_sha, (image, row) in slices.items():
        key = {"revision_id": revision_id, "recipe_id": recipes[recipe_sha]}
        if there.get(key["recipe_id"]) == row["sha256"]:
            continue
        rows.append(key | row)
        inputs += [
            key | {"channel": channel, "kind": kind, "level_of_theory": level}
            for channel, (kind, level) in enumerate(image.inputs)
        ]
    if not rows:
        return False
    if there:
        # Takes the links to the densities along; nothing else points to a slice.
        session.execute(
            delete(SliceImage).where(
                SliceImage.revision_id == revision_id, SliceImage.recipe_id.in_([row["recipe_id"] for row in rows])
            )
        )
    session.execute(insert(SliceImage), rows)
    if inputs:
        session.execute(insert(SliceInput), inputs)
    return True


def _write_descriptions(session: Session, revision_id: int, descriptions: Iterable[DescriptionData]) -> bool:
    rows = [
        {
            "revision_id": revision_id,
            "text_level": text.text_level,
            "text": text.text,
            "generator": text.generator,
            "generator_version": text.generator_version,
        }
        for text in descriptions
    ]
    if not rows:
        return False
    upsert = insert(Description).values(rows)
    fields = ("text", "generator", "generator_version")
    written = session.scalars(
        upsert.on_conflict_do_update(
            index_elements=[Description.revision_id, Description.text_level],
            set_={field: upsert.excluded[field] for field in fields},
            where=or_(*(getattr(Description, field).is_distinct_from(upsert.excluded[field]) for field in fields)),
        ).returning(Description.text_level)
    )
    return bool(written.all())


def _near_ids(session: Session, ident: str) -> str:
    same_formula = session.scalars(
        select(Crystal.source_id)
        .join(CrystalRevision)
        .where(CrystalRevision.is_current, CrystalRevision.formula == ident)
        .order_by(Crystal.id)
        .limit(3)
    ).all()
    if same_formula:
        return f"crystals of that formula: {', '.join(same_formula)}"
    # Ids of one source mostly differ in length and a few digits: the nearest in length come first.
    distance = func.abs(func.length(Crystal.source_id) - len(ident))
    ids = session.scalars(select(Crystal.source_id).order_by(distance, Crystal.id).limit(5000)).all()
    near = difflib.get_close_matches(ident, ids, n=3, cutoff=0.7)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return "`ecdreg ingest` adds crystals" if not ids else "v_materials lists them in `ecdreg db shell`"
