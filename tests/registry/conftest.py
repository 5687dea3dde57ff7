"""Fixtures of the registry tests: synthetic crystals, a grid store and an ingest run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypedDict, Unpack

import numpy as np
import pytest
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.crystals import (
    CrystalData,
    DensityData,
    DescriptionData,
    PropertyData,
    SliceData,
    WrittenCrystal,
    write_crystal,
)
from registry.files.grids import GridStore
from registry.models import IngestRun

METRIC = {"plane": [1, -1, 0], "window": 12.0}
TARGET_VALUES = {"formation_energy_per_atom": -1.5, "efermi": 3.25, "k_vrh": 100.0}


class CrystalParts(TypedDict, total=False):
    """Parts of a synthetic crystal that differ from the default."""

    source: str
    formula: str
    values: Mapping[str, float]
    level_of_theory: str
    pixel_max: float
    densities: bool
    slices: bool
    recipe: str
    parameters: Mapping[str, object]
    text: str | None
    prototype: str | None
    version: int
    material_key: str | None


class MakeCrystal(Protocol):
    """Makes the data of a crystal."""

    def __call__(self, source_id: str, **parts: Unpack[CrystalParts]) -> CrystalData: ...


class AddCrystal(Protocol):
    """Makes the data of a crystal and writes them."""

    def __call__(self, source_id: str, **parts: Unpack[CrystalParts]) -> WrittenCrystal: ...


@pytest.fixture
def make_crystal() -> MakeCrystal:
    """Make a crystal with properties, two densities, a slice image and a text."""

    def make(source_id: str, **parts: Unpack[CrystalParts]) -> CrystalData:
        formula = parts.get("formula", "NaCl")
        values = parts.get("values", TARGET_VALUES)
        level_of_theory = parts.get("level_of_theory", "GGA")
        pixel_max = parts.get("pixel_max", 1.0)
        prototype = parts.get("prototype", "AB-cF8-225")
        text = parts.get("text", "a crystal")
        grid = np.full((2, 3, 4), 0.25) + np.arange(24).reshape(2, 3, 4) / 100
        pixels = np.stack([np.linspace(0, pixel_max, 16), np.linspace(-pixel_max, 0, 16)]).reshape(2, 4, 4)
        densities = tuple(
            DensityData(kind, level_of_theory, grid, np.eye(3) * 4.0)
            for kind in ("total", "deformation")
            if parts.get("densities", True)
        )
        image = SliceData(
            parts.get("recipe", "metric"),
            dict(parts.get("parameters", METRIC)),
            "e/Å^3",
            pixels.astype(np.float32),
            tuple((density.kind, density.level_of_theory) for density in densities),
        )
        return CrystalData(
            source=parts.get("source", "test"),
            source_id=source_id,
            formula=formula,
            structure={"lattice": {"matrix": np.eye(3).tolist()}} if prototype else None,
            space_group_number=225 if prototype else None,
            space_group_symbol="Fm-3m" if prototype else None,
            prototype=prototype,
            n_sites=2,
            volume=64.0,
            content_sha256=json_sha256([source_id, formula, dict(values), level_of_theory, parts.get("version", 0)]),
            properties=tuple(PropertyData(name, value, level_of_theory) for name, value in values.items()),
            densities=densities,
            slices=(image,) if parts.get("slices", True) else (),
            descriptions=(DescriptionData("keywords", text, "test"),) if text else (),
            material_key=parts.get("material_key"),
        )

    return make


@pytest.fixture
def grids(tmp_path: Path) -> GridStore:
    """A grid store in a temporary folder."""
    return GridStore((tmp_path / "grids").as_uri())


@pytest.fixture
def run(session: Session) -> IngestRun:
    """A run of the source ``test``."""
    run = IngestRun(source="test", source_release=None, parameters={}, code_version="test")
    session.add(run)
    session.flush()
    return run


@pytest.fixture
def add_crystal(session: Session, run: IngestRun, grids: GridStore, make_crystal: MakeCrystal) -> AddCrystal:
    """Make a crystal with :func:`make_crystal`, and write it."""

    def add(source_id: str, **parts: Unpack[CrystalParts]) -> WrittenCrystal:
        return write_crystal(session, make_crystal(source_id, **parts), run_id=run.id, grids=grids)

    return add
