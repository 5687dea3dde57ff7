"""Checksums of the input of a crystal, which detect changes in a source, and of its content."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ingest.preparation.options import IngestOptions
from ingest.sources.base import SourceRecord
from ingest.texts.descriptions import robocrys_version
from registry.checksums import json_sha256
from registry.crystals import DensityData, PropertyData

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["content_sha256", "input_sha256", "needs_description"]


def needs_description(record: SourceRecord, options: IngestOptions) -> bool:
    """Whether robocrystallographer may have to compute a text, which takes seconds."""
    return options.texts == "compute" or (options.texts == "source" and not record.has_description)


def input_sha256(record: SourceRecord, options: IngestOptions, *, fingerprint: str | None = None) -> str:
    """SHA-256 (hex) of the input of a record and of every option that changes the result.

    Parameters
    ----------
    record
        Record of a source.
    options
        Options of the ingest.
    fingerprint
        ``options.fingerprint()``, if it is already computed.

    Raises
    ------
    OSError
        If a file of the record cannot be read now.
    """
    parts = [record.input_sha256(), options.fingerprint() if fingerprint is None else fingerprint]
    if needs_description(record, options):
        parts.append(robocrys_version())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def content_sha256(
    formula: str, structure: Structure | None, properties: tuple[PropertyData, ...], densities: list[DensityData]
) -> str:
    """SHA-256 (hex) of the content of a crystal, independent of file format and library versions.

    Parameters
    ----------
    formula
        Reduced formula.
    structure
        Stored structure, if there is one.
    properties
        Property values.
    densities
        Stored densities [e/Å^3].
    """
    content = {
        "formula": formula,
        "structure": structure
        and {
            "lattice": _rounded(structure.lattice.matrix),
            "species": [str(site.species_string) for site in structure],
            "positions": _rounded(structure.frac_coords),
        },
        "properties": sorted([p.name, p.level_of_theory, p.value, p.source_release] for p in properties),
    }
    digest = hashlib.sha256(json_sha256(content).encode())
    for density in sorted(densities, key=lambda density: (density.kind, density.level_of_theory)):
        values = np.ascontiguousarray(density.values)
        header = [density.kind, density.level_of_theory, density.provenance, list(values.shape), values.dtype.str]
        digest.update(json_sha256([header, _rounded(density.lattice)]).encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _rounded(values: Any) -> Any:
    # Adding zero makes -0.0 and 0.0 equal.
    return (np.round(np.asarray(values, dtype=np.float64), 6) + 0.0).tolist()
