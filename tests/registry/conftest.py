"""Crystals made of numbers, for tests of the registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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

MakeCrystal = Callable[..., CrystalData]
AddCrystal = Callable[..., WrittenCrystal]


@pytest.fixture
def make_crystal() -> MakeCrystal:
    """A crystal with properties, a density, a slice and a text; every part can be given."""

    def make(
        source_id: str,
        *,
        source: str = "test",
        formula: str = "NaCl",
        values: Mapping[str, float] | None = None,
        level: str = "GGA",
        level_pixel: float = 1.0,
        densities: bool = True,
        slices: bool = True,
        recipe: str = "metric",
        parameters: Mapping[str, Any] | None = None,
        text: str | None = "a crystal",
        prototype: str | None = "AB-cF8-225",
        version: int = 0,
        material_key: str | None = None,
    ) -> CrystalData:
        values = TARGET_VALUES if values is None else values
        grid = np.full((2, 3, 4), 0.25) + np.arange(24).reshape(2, 3, 4) / 100
        pixels = np.stack([np.linspace(0, level_pixel, 16), np.linspace(-level_pixel, 0, 16)]).reshape(2, 4, 4)
        densities_ = tuple(DensityData(kind, level, grid, np.eye(3) * 4.0) for kind in ("total", "deformation"))
        return CrystalData(
            source=source,
            source_id=source_id,
            formula=formula,
            structure={"lattice": {"matrix": np.eye(3).tolist()}} if prototype else None,
            space_group_number=225 if prototype else None,
            space_group_symbol="Fm-3m" if prototype else None,
            prototype=prototype,
            n_sites=2,
            volume=64.0,
            content_sha256=json_sha256([source_id, formula, dict(values), level, version]),
            properties=tuple(PropertyData(name, value, level) for name, value in values.items()),
            densities=densities_ if densities else (),
            slices=(
                SliceData(
                    recipe,
                    dict(parameters or METRIC),
                    "e/Å^3",
                    pixels.astype(np.float32),
                    tuple((d.kind, d.level_of_theory) for d in densities_) if densities else (),
                ),
            )
            if slices
            else (),
            descriptions=(DescriptionData("keywords", text, "test"),) if text else (),
            material_key=material_key,
        )

    return make


@pytest.fixture
def grids(tmp_path: Path) -> GridStore:
    return GridStore((tmp_path / "grids").as_uri())


@pytest.fixture
def run(session: Session) -> IngestRun:
    run = IngestRun(source="test", source_release=None, parameters={}, code_version="test")
    session.add(run)
    session.flush()
    return run


@pytest.fixture
def add_crystal(session: Session, run: IngestRun, grids: GridStore, make_crystal: MakeCrystal) -> AddCrystal:
    """Make a crystal as ``make_crystal`` does, and write it."""

    def add(source_id: str, **parts: Any) -> WrittenCrystal:
        return write_crystal(session, make_crystal(source_id, **parts), run_id=run.id, grids=grids)

    return add
