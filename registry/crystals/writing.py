"""Writing of crystals and their revisions.

:func:`write_crystal` writes only what has changed. Changed content becomes a new revision, so that the revision that a
split or a model uses stays the same.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Select, delete, null, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.crystals.data import CrystalData, DensityData, DescriptionData, SliceData
from registry.errors import InputError
from registry.files.grids import GridStore, StoredGrid
from registry.formulas import chemical_system, composition_key
from registry.image_recipes import ensure_recipes, recipe_sha256
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

__all__ = ["WrittenCrystal", "material_key_of", "write_crystal"]

_EXTERNAL_ID = re.compile(r"(mp|mvc)-[0-9]+")


@dataclass(frozen=True)
class WrittenCrystal:
    """Result of :func:`write_crystal`: the current revision, and the change that led to it."""

    revision_id: int
    outcome: str
    """created, updated or unchanged."""


def write_crystal(session: Session, data: CrystalData, *, run_id: int, grids: GridStore) -> WrittenCrystal:
    """Write a crystal, or the parts of it that have changed.

    If the content equals that of the current revision, only slices and descriptions that are missing or different are
    written to that revision. Otherwise a new revision becomes current. Implausible property values are kept and
    marked as suspect. Unknown levels of theory are added.

    Parameters
    ----------
    data
        The crystal.
    run_id
        The ingest run.
    grids
        The store of the density grids; an existing grid is not written again.

    Raises
    ------
    InputError
        If a value cannot be stored; nothing is written in that case.
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
    _add_levels_of_theory(session, data)
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
    """Key of the material of a crystal, the same under all sources.

    It is the id itself if that is one of the Materials Project (``mp-...``, ``mvc-...``), otherwise a fingerprint of
    composition, space group and prototype. The fingerprint does not depend on the volume, so that one material at two
    levels of theory, or under pressure, is not divided between training and holdout.
    """
    if data.material_key:
        return data.material_key
    if _EXTERNAL_ID.fullmatch(source_id):
        return source_id
    parts = (composition_key(data.formula), data.space_group_number, data.prototype)
    return f"fingerprint-{json_sha256(parts)[:32]}"


def _store(data: CrystalData, density: DensityData, grids: GridStore) -> StoredGrid:
    existing = data.stored.get((density.kind, density.level_of_theory))
    # The stored grid may be in another store. Compressing a grid again takes seconds.
    return existing if existing is not None and grids.holds(existing) else grids.put(density.values, density.lattice)


@dataclass(frozen=True)
class _Prepared:
    """Values that are derived from the data alone, before the first SQL statement."""

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
            raise InputError(f"{value.name} of {data.source_id} is {value.value}; leave out unknown values")
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
    """Material key of a new crystal: its own, or that of the same material from another source.

    Two ids of the Materials Project stay two materials.
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


def _add_levels_of_theory(session: Session, data: CrystalData) -> None:
    named = {value.level_of_theory for value in data.properties}
    named |= {density.level_of_theory for density in data.densities}
    if unknown := sorted(named - LEVELS_OF_THEORY.keys()):
        description = f"named by the source {data.source}"
        session.execute(
            insert(LevelOfTheory).on_conflict_do_nothing(),
            [{"name": name, "preference": DEFAULT_PREFERENCE, "description": description} for name in unknown],
        )


def _write_derived(session: Session, revision_id: int, data: CrystalData, prepared: _Prepared) -> bool:
    """Write the slices and descriptions that are missing or different in the revision; return whether there are any."""
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
    existing = dict(
        session.execute(
            select(SliceImage.recipe_id, SliceImage.sha256).where(SliceImage.revision_id == revision_id)
        ).all()
    )
    rows, inputs = [], []
    for recipe_sha, (image, row) in slices.items():
        key = {"revision_id": revision_id, "recipe_id": recipes[recipe_sha]}
        if existing.get(key["recipe_id"]) == row["sha256"]:
            continue
        rows.append(key | row)
        inputs += [
            key | {"channel": channel, "kind": kind, "level_of_theory": level_of_theory}
            for channel, (kind, level_of_theory) in enumerate(image.inputs)
        ]
    if not rows:
        return False
    if existing:
        # Also deletes the links to the densities, the only references to a slice.
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
