"""Preparation of one crystal for the registry: read, check, render slices, describe.

All functions are pure functions of a record and of the options. They run in worker processes, and
also for a file that is not in the registry (``ecdreg predict --structure``). Every failure of a
crystal is part of its result (:class:`~ingest.preparation.outcome.Prepared`).
"""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.densities.slim import slim_densities
from ingest.preparation.checking import (
    check_space_group,
    reduced_formula,
    same_cell,
    structure_and_cell,
    valid_densities,
)
from ingest.preparation.checksums import content_sha256
from ingest.preparation.describing import make_descriptions
from ingest.preparation.options import IngestOptions
from ingest.preparation.outcome import Prepared, Problems, one_line
from ingest.preparation.rendering import render_slices
from ingest.sources.base import SourceRecord
from ingest.sources.folder import FolderRecord
from registry.crystals import CrystalData, DensityData, SliceData
from registry.errors import ConfigurationError, EcdregError, InputError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["IMPORTED", "prepare", "prepare_files"]

IMPORTED = "imported"
"""Recipe name of an image that was rendered elsewhere."""


def prepare(record: SourceRecord, options: IngestOptions) -> Prepared:
    """Read, check, slice and describe one crystal.

    Errors of the libraries that this uses become an outcome of this crystal, with the type and
    the message of the error.

    Raises
    ------
    ConfigurationError
        If the options name a recipe that does not exist.
    """
    try:
        with warnings.catch_warnings():
            # pymatgen warns of every noble gas when it orders the elements of a formula.
            warnings.filterwarnings("ignore", message="No Pauling electronegativity")
            return _prepare(record, options)
    except InputError as error:
        return Prepared(record.source_id, rejected=one_line(error))
    except EcdregError:
        raise
    except (OSError, MemoryError) as error:
        return Prepared(record.source_id, deferred=one_line(error))
    except Exception as error:  # noqa: BLE001  pymatgen and spglib raise errors of many types for unusual crystals
        return Prepared(record.source_id, rejected=one_line(error))


def prepare_files(
    structure: Path | None, density: Path | None, *, reference: Path | None = None, options: IngestOptions | None = None
) -> Prepared:
    """Prepare a crystal from files that belong to no source.

    Parameters
    ----------
    structure
        CIF, POSCAR or pymatgen JSON; None: the structure in the file of the density.
    density
        CHGCAR, cube or HDF5; None: no density.
    reference
        Superposed free atoms, for the deformation density of a CHGCAR.
    options
        Options of an ingest; default: ``IngestOptions()``.

    Raises
    ------
    ConfigurationError
        If neither file is given, or the options name a recipe that does not exist.
    """
    main = structure if structure is not None else density
    if main is None:
        raise ConfigurationError("give a structure file, a density file, or both")
    record = FolderRecord(
        source="file",
        source_id=main.name,
        formula=None,
        structures=() if structure is None else (structure,),
        densities=() if density is None else (density,),
        reference=reference,
    )
    return prepare(record, options or IngestOptions())


def _prepare(record: SourceRecord, options: IngestOptions) -> Prepared:
    from ingest.slices.recipes import RECIPES

    recipes = [RECIPES[name] for name in options.recipes]
    raw = record.read(level_of_theory=options.level_of_theory)
    # Before the checks: another registry may need a download that this one rejects.
    stored = {} if raw.keep is None or options.slim else raw.keep()
    problems = Problems(list(raw.problems))
    structure, own = structure_and_cell(raw, problems)
    formula = reduced_formula(raw, structure)
    group = check_space_group(structure, options, problems)
    densities = [] if own is None else valid_densities(raw.densities, own, problems)
    if own is not None and (raw.derive_deformation or options.derive_deformation):
        densities += _derived_deformations(densities, own, problems)
    # A crystal with an imported image needs no density to have a slice.
    has_own_image = raw.image is not None and not raw.densities
    slices = render_slices([] if has_own_image else recipes, densities, own, problems=problems)
    if options.slim:
        densities = slim_densities(densities, recipes)
    if own is not None and structure is not None and not same_cell(structure, own):
        densities = [replace(density, structure=_as_dict(own)) for density in densities]
    if raw.image is not None:
        slices.append(SliceData(IMPORTED, {"method": IMPORTED}, None, raw.image))
    descriptions = make_descriptions(
        formula, structure, source=record.source, given=raw.description, options=options, problems=problems
    )
    data = CrystalData(
        source=record.source,
        source_id=record.source_id,
        formula=formula,
        structure=None if structure is None else _as_dict(structure),
        space_group_number=None if group is None else group.number,
        space_group_symbol=None if group is None else group.symbol,
        prototype=None if group is None else group.prototype,
        n_sites=None if structure is None else len(structure),
        volume=None if structure is None else float(structure.volume),
        content_sha256=content_sha256(formula, structure, raw.properties, densities),
        properties=raw.properties,
        densities=tuple(densities),
        slices=tuple(slices),
        stored=stored,
        descriptions=tuple(descriptions),
    )
    return Prepared(record.source_id, data, tuple(problems.lines), retry=raw.retry)


def _derived_deformations(densities: list[DensityData], own: Structure, problems: Problems) -> list[DensityData]:
    """Deformation densities for the total densities without one."""
    from ingest.free_atoms import deformation, totals_without_deformation

    derived = []
    for total in totals_without_deformation(densities):
        density = problems.attempt("deformation density", lambda total=total: deformation(total, own))  # type: ignore[misc]
        if density is not None:
            derived.append(density)
    return derived


def _as_dict(structure: Structure) -> dict[str, Any]:
    # Through JSON, which converts numpy numbers for the database.
    as_dict: dict[str, Any] = json.loads(structure.to_json())
    return as_dict
