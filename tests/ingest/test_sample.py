"""The bundled sample: complete, small, varied, and with permitted content only."""

from __future__ import annotations

import csv
import math
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from ingest.densities.checks import check_density
from ingest.readers.densities import read_densities
from ingest.readers.structures import read_structure
from ingest.slices.space_groups import space_group
from ingest.sources.sample import sample_source
from ingest.texts.descriptions import GENERATOR, texts_by_level
from registry.formulas import composition_key
from registry.properties import PROPERTIES, TARGETS, suspect_reason

SAMPLE = Path(str(files("ingest") / "sample"))
SUSPECT = {"mp-568662", "mp-1000", "mp-612118"}


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, str]]:
    with (SAMPLE / "properties.csv").open(encoding="utf-8", newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def test_every_crystal_is_complete(rows: dict[str, dict[str, str]]) -> None:
    assert len(rows) == 200
    assert {path.stem for path in (SAMPLE / "structures").iterdir()} == rows.keys()
    assert {path.stem for path in (SAMPLE / "densities").iterdir()} == rows.keys()
    source = sample_source()
    assert [record.source_id for record in source.records()] == list(rows)
    assert not source.remarks
    assert all(record.has_description for record in source.records())


def test_it_contains_only_registered_properties(rows: dict[str, dict[str, str]]) -> None:
    columns = set(next(iter(rows.values())))
    assert columns - {"id", "formula", "level_of_theory"} == PROPERTIES.keys()
    assert {row["level_of_theory"] for row in rows.values()} == {"GGA_GGA+U"}
    assert {path.name for path in SAMPLE.iterdir()} == {
        "README.md",
        "descriptions.csv",
        "densities",
        "properties.csv",
        "structures",
    }
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) < 24e6


def test_labels_are_numbers_and_three_are_suspect(rows: dict[str, dict[str, str]]) -> None:
    for target in TARGETS:
        values = {ident: float(row[target]) for ident, row in rows.items()}
        assert all(math.isfinite(value) for value in values.values())
        suspect = {ident for ident, value in values.items() if suspect_reason(target, value)}
        assert suspect == (SUSPECT if target == "k_vrh" else set())
    assert sum(float(row["k_vrh"]) > 250 for row in rows.values()) >= 5
    assert rows["mp-1022"]["formula"] == "K2S"


@pytest.mark.filterwarnings("ignore:No Pauling electronegativity")
def test_structures_are_fcc_and_include_every_prototype(rows: dict[str, dict[str, str]]) -> None:
    found: Counter[str] = Counter()
    for ident, row in rows.items():
        structure = read_structure(SAMPLE / "structures" / f"{ident}.cif")
        group = space_group(structure)
        assert group.f_centred_cubic
        assert composition_key(structure.composition.reduced_formula) == composition_key(row["formula"])
        found[group.prototype] += 1
    assert found == {
        "ABC2-cF16-225": 92,
        "AB-cF8-225": 35,
        "AB2-cF12-225": 25,
        "AB2C6-cF36-225": 25,
        "A-cF4-225": 12,
        "AB3-cF16-225": 9,
        "ABC2D6-cF40-225": 2,
    }


def test_densities_pass_the_checks(rows: dict[str, dict[str, str]]) -> None:
    magnetic = 0
    for ident in rows:
        structure, densities = read_densities(SAMPLE / "densities" / f"{ident}.h5")
        for density in densities:
            check_density(density, structure, electrons=densities[0].n_electrons)
        kinds = {density.kind for density in densities}
        assert kinds >= {"total", "deformation"}
        assert {density.level_of_theory for density in densities} == {"GGA"}
        magnetic += "spin" in kinds
    assert magnetic == 36


def test_texts_are_generated_by_this_project(rows: dict[str, dict[str, str]]) -> None:
    with (SAMPLE / "descriptions.csv").open(encoding="utf-8", newline="") as file:
        texts = {row["id"]: row for row in csv.DictReader(file)}
    assert list(texts) == list(rows)
    assert {row["generator"] for row in texts.values()} == {GENERATOR}
    without_bonds = {
        rows[ident]["formula"]
        for ident, row in texts.items()
        if ": " not in texts_by_level(row["description"], "X")["keywords"]
    }
    assert without_bonds == {"Ne", "Ar", "Kr"}


def test_origin_and_licence_are_stated() -> None:
    note = (SAMPLE / "README.md").read_text(encoding="utf-8")
    for word in ("CC BY 4.0", "Materials Project", "APL Materials 1, 011002 (2013)", "GPAW", "robocrystallographer"):
        assert word in note
