"""Preparation of one crystal from its files."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Protocol

import h5py
import numpy as np
import pytest
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from ingest.preparation.checksums import input_sha256, needs_description
from ingest.preparation.options import IngestOptions
from ingest.preparation.outcome import Prepared
from ingest.preparation.prepare import prepare, prepare_files
from ingest.readers.structures import read_structure
from ingest.sources.base import RawCrystal, RawDescription
from ingest.sources.folder import FolderRecord
from registry.crystals import CrystalData, PropertyData
from registry.errors import ConfigurationError, UnknownNameError
from tests.ingest.conftest import MakeDensity, rock_salt

SAMPLE = Path(str(files("ingest") / "sample"))


TEXT = RawDescription("LiH is salt. All Li(1)-H(1) bond lengths are 2.00 Å.", "somebody", "1")


OPTIONS = IngestOptions(fcc=True)


ROCK_SALT = "mp-23703"  # LiH


def sample_record(ident: str = ROCK_SALT, formula: str | None = "LiH", **changes: object) -> FolderRecord:
    record = FolderRecord(
        source="test",
        source_id=ident,
        formula=formula,
        values=(("k_vrh", "14.2"),),
        structures=(SAMPLE / "structures" / f"{ident}.cif",),
        densities=(SAMPLE / "densities" / f"{ident}.h5",),
        description=TEXT,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def data_of(prepared: Prepared) -> CrystalData:
    assert prepared.rejected is None
    assert prepared.deferred is None
    assert prepared.data is not None
    return prepared.data


class EditDensity(Protocol):
    """Copy the density of LiH, change the copy, and return its path."""

    def __call__(self, change: Callable[[h5py.File], None]) -> Path: ...


@pytest.fixture
def edited_density(tmp_path: Path) -> EditDensity:
    """Function that copies and changes the density of LiH."""

    def edit(change: Callable[[h5py.File], None]) -> Path:
        path = tmp_path / f"{ROCK_SALT}.h5"
        shutil.copy(SAMPLE / "densities" / path.name, path)
        path.chmod(0o644)
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return edit


def test_valid_crystal() -> None:
    prepared = prepare(sample_record(), OPTIONS)
    data = data_of(prepared)
    assert prepared.problems == ()
    assert (data.formula, data.prototype, data.space_group_symbol) == ("LiH", "AB-cF8-225", "Fm-3m")
    assert {density.kind for density in data.densities} == {"total", "deformation"}
    total = next(density for density in data.densities if density.kind == "total")
    assert round(total.n_electrons, 3) == round(total.n_electrons)
    (image,) = data.slices
    assert image.recipe_name == "metric"
    assert image.pixels.dtype == np.float32
    assert image.pixels.shape[0] == len(image.inputs) == 2
    assert image.inputs == (("total", "GGA"), ("deformation", "GGA"))
    texts = {text.text_level: text.text for text in data.descriptions}
    assert texts == {"formula": "LiH", "keywords": "LiH: Li-H 2.00 Å", "all": TEXT.text}
    assert data.properties == (PropertyData("k_vrh", 14.2, "unspecified"),)
    json.dumps(data.structure, allow_nan=False)


def test_result_is_picklable_and_reproducible() -> None:
    once, again = prepare(sample_record(), OPTIONS), pickle.loads(pickle.dumps(prepare(sample_record(), OPTIONS)))
    assert data_of(once).content_sha256 == data_of(again).content_sha256
    assert np.array_equal(data_of(once).slices[0].pixels, data_of(again).slices[0].pixels)


def test_content_checksum_depends_on_values_and_not_on_file_formats(tmp_path: Path) -> None:
    cif = data_of(prepare(sample_record(), OPTIONS))
    poscar = tmp_path / "a.vasp"
    read_structure(SAMPLE / "structures" / f"{ROCK_SALT}.cif").to(filename=str(poscar), fmt="poscar")
    same = data_of(prepare(sample_record(structures=(poscar,)), OPTIONS))
    assert same.content_sha256 == cif.content_sha256
    for change in ({"values": (("k_vrh", "14.3"),)}, {"level_of_theory": "LDA"}, {"release": "2"}, {"densities": ()}):
        assert data_of(prepare(sample_record(**change), OPTIONS)).content_sha256 != cif.content_sha256
    # Texts and slices are derived data; they do not change the content.
    other = data_of(prepare(sample_record(description=replace(TEXT, text="Salt.")), replace(OPTIONS, recipes=())))
    assert other.content_sha256 == cif.content_sha256


def test_fcc_rejects_other_space_groups_with_their_symbol(tmp_path: Path) -> None:
    path = tmp_path / "cscl.cif"
    Structure(Lattice.cubic(4.1), ["Cs", "Cl"], [[0, 0, 0], [0.5] * 3]).to(filename=str(path))
    record = FolderRecord("test", "cscl", "CsCl", structures=(path,), description=TEXT)
    assert prepare(record, OPTIONS).rejected == "space group Pm-3m (221) is not F-centred cubic"
    kept = prepare(record, IngestOptions())
    assert data_of(kept).space_group_number == 221
    assert kept.problems == ("no density, so no slice (metric)",)


def test_crystal_without_a_structure_needs_assume_fcc() -> None:
    record = FolderRecord("test", "x", "Cl4Na4", description=TEXT)
    assert "--assume-fcc" in str(prepare(record, OPTIONS).rejected)
    data = data_of(prepare(record, IngestOptions(fcc=True, assume_fcc=True)))
    assert (data.formula, data.structure, data.space_group_number, data.n_sites) == ("NaCl", None, None, None)
    assert {text.text_level for text in data.descriptions} == {"formula", "keywords", "all"}


def test_structure_may_come_from_the_density_file() -> None:
    data = data_of(prepare(sample_record(structures=(), formula=None), OPTIONS))
    assert (data.formula, data.space_group_number) == ("LiH", 225)
    assert data.slices


@pytest.mark.parametrize(
    ("formula", "reason"),
    [
        ("KCl", "formula 'KCl' does not agree with the structure, which is LiH"),
        ("Li2H", "does not agree"),
        ("Lih", "is not a chemical formula|is not an element"),
        ("12", "is not a chemical formula"),
    ],
)
def test_wrong_formula_is_rejected(formula: str, reason: str) -> None:
    import re

    rejected = prepare(sample_record(formula=formula), OPTIONS).rejected
    assert rejected is not None
    assert re.search(reason, rejected)


def test_crystal_without_formula_and_structure_is_rejected() -> None:
    rejected = prepare(FolderRecord("test", "x", None), IngestOptions()).rejected
    assert rejected == "neither a formula nor a structure"


def test_invalid_density_is_left_out_alone(
    edited_density: EditDensity,
) -> None:
    def insert_nan(file: h5py.File) -> None:
        values = file["vdata/deformation"][()]
        values[3, 1, 4] = np.nan
        del file["vdata/deformation"]  # its filter rounds to three decimals and does not support NaN
        file["vdata/deformation"] = values

    prepared = prepare(sample_record(densities=(edited_density(insert_nan),)), OPTIONS)
    data = data_of(prepared)
    assert [density.kind for density in data.densities] == ["total"]
    assert any("deformation" in problem and "not finite" in problem for problem in prepared.problems)
    assert any("recipe metric needs a deformation density" in problem for problem in prepared.problems)
    assert data.properties
    assert data.descriptions


def test_wrong_number_of_electrons_is_reported(edited_density: EditDensity) -> None:
    def multiply(file: h5py.File) -> None:
        del file.attrs["n_electrons"]
        file["vdata/total"][...] = file["vdata/total"][()] * 9

    prepared = prepare(sample_record(densities=(edited_density(multiply),)), OPTIONS)
    assert any("electrons" in problem for problem in prepared.problems)
    assert "total" not in {density.kind for density in data_of(prepared).densities}


def test_density_of_another_crystal_is_left_out() -> None:
    other = SAMPLE / "densities" / "mp-1022.h5"
    prepared = prepare(sample_record(densities=(other,)), OPTIONS)
    data = data_of(prepared)
    assert data.densities == data.slices == ()
    assert any("K2S" in problem for problem in prepared.problems)
    assert data.volume == pytest.approx(read_structure(SAMPLE / "structures" / f"{ROCK_SALT}.cif").volume)


def test_structure_in_another_cell_is_replaced_by_that_of_the_density(tmp_path: Path) -> None:
    primitive = read_structure(SAMPLE / "structures" / f"{ROCK_SALT}.cif")
    conventional = primitive.copy()
    conventional.make_supercell([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])
    path = tmp_path / "conventional.cif"
    conventional.to(filename=str(path))
    prepared = prepare(sample_record(structures=(path,)), OPTIONS)
    assert prepared.problems == ()
    assert data_of(prepared).n_sites == len(primitive) == 2
    plain = data_of(prepare(sample_record(), OPTIONS))
    assert np.array_equal(data_of(prepared).slices[0].pixels, plain.slices[0].pixels)

    conventional.scale_lattice(conventional.volume * 1.1)
    conventional.to(filename=str(path))
    stretched = prepare(sample_record(structures=(path,)), OPTIONS)
    assert data_of(stretched).n_sites == len(conventional) == 8
    assert data_of(stretched).densities == ()
    assert any("give the structure that it was calculated for" in problem for problem in stretched.problems)


def test_recipes_of_missing_kinds_are_problems() -> None:
    options = replace(OPTIONS, recipes=("metric", "paper", "paper-total"))
    prepared = prepare(sample_record(), options)
    assert [image.recipe_name for image in data_of(prepared).slices] == ["metric", "paper-total"]
    assert len(prepared.problems) == 1
    assert "spin" in prepared.problems[0]


def test_imported_image_has_its_own_recipe(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.linspace(0, 1, 12).reshape(3, 4))
    slices = {image.recipe_name: image for image in data_of(prepare(sample_record(images=(path,)), OPTIONS)).slices}
    assert slices.keys() == {"metric", "imported"}
    assert slices["imported"].pixels.shape == (1, 3, 4)
    assert slices["imported"].unit is None
    assert slices["imported"].inputs == ()


def test_crystal_with_an_image_needs_no_density(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.linspace(0, 1, 12).reshape(3, 4))
    prepared = prepare(sample_record(images=(path,), densities=()), OPTIONS)
    assert [image.recipe_name for image in data_of(prepared).slices] == ["imported"]
    assert prepared.problems == ()
    # An unusable density is reported nevertheless.
    wrong = prepare(sample_record(images=(path,), densities=(SAMPLE / "densities" / "mp-1022.h5",)), OPTIONS)
    assert any("K2S" in problem for problem in wrong.problems)


def test_needs_description_by_text_mode() -> None:
    assert data_of(prepare(sample_record(), replace(OPTIONS, texts="none"))).descriptions == ()
    bare = sample_record(description=None)
    for texts, with_text, without in (("source", False, True), ("compute", True, True), ("none", False, False)):
        options = replace(OPTIONS, texts=texts)
        assert needs_description(sample_record(), options) is with_text
        assert needs_description(bare, options) is without


def test_crystal_without_a_structure_has_only_the_formula_as_text() -> None:
    prepared = prepare(FolderRecord("test", "x", "NaCl"), IngestOptions())
    assert [(text.text_level, text.text) for text in data_of(prepared).descriptions] == [("formula", "NaCl")]
    assert len(prepared.problems) == 2


def test_input_checksum_depends_on_options_that_change_the_result() -> None:
    record = sample_record()
    same = {input_sha256(record, replace(OPTIONS, **change)) for change in ({}, {"workers": 3}, {"limit": 5})}
    assert len(same) == 1
    others = {
        input_sha256(record, replace(OPTIONS, **change))
        for change in (
            {"fcc": False},
            {"assume_fcc": True},
            {"recipes": ("metric-111",)},
            {"texts": "compute"},
            {"texts": "none"},
            {"level_of_theory": "LDA"},
        )
    }
    assert len(others - same) == 6


def test_unknown_recipe_is_an_error() -> None:
    options = IngestOptions(recipes=("metrik",))
    with pytest.raises(UnknownNameError, match="did you mean 'metric'"):
        options.fingerprint()
    with pytest.raises(UnknownNameError):
        prepare(sample_record(), options)


@dataclass(frozen=True)
class Failing:
    """A record that raises an error."""

    error: Exception
    source: str = "test"
    source_id: str = "x"
    has_description: bool = True

    def input_sha256(self) -> str:
        return "0" * 64

    def read(self, *, level_of_theory: str | None = None) -> RawCrystal:
        raise self.error


def test_library_errors_are_outcomes_of_one_line() -> None:
    assert prepare(Failing(ValueError("bad\nlattice")), OPTIONS).rejected == "ValueError: bad lattice"
    assert prepare(Failing(ZeroDivisionError()), OPTIONS).rejected == "ZeroDivisionError: no message"
    assert prepare(Failing(TimeoutError("no answer")), OPTIONS).deferred == "TimeoutError: no answer"
    assert prepare(Failing(MemoryError()), OPTIONS).deferred == "MemoryError: no message"


def test_files_without_a_source_are_prepared_equally() -> None:
    structure, density = SAMPLE / "structures" / f"{ROCK_SALT}.cif", SAMPLE / "densities" / f"{ROCK_SALT}.h5"
    options = IngestOptions(texts="none")
    both = data_of(prepare_files(structure, density, options=options))
    alone = data_of(prepare_files(None, density, options=options))
    expected = data_of(prepare(sample_record(), OPTIONS))
    for data in (both, alone):
        assert np.array_equal(data.slices[0].pixels, expected.slices[0].pixels)
    assert prepare_files(structure, None, options=options).problems == ("no density, so no slice (metric)",)
    assert "cannot be read" in str(prepare_files(Path("nowhere.cif"), None, options=options).rejected)
    with pytest.raises(ConfigurationError, match="a structure file, a density file"):
        prepare_files(None, None)


def test_slim_applies_to_files(tmp_path: Path, gaussian_density: MakeDensity) -> None:
    from pymatgen.io.vasp.inputs import Poscar
    from pymatgen.io.vasp.outputs import Chgcar

    structure = rock_salt()
    density = gaussian_density(structure, (64, 64, 64), {"Na": (7, 0.4), "Cl": (7, 0.4)})
    Chgcar(Poscar(structure), {"total": density.values * structure.volume}).write_file(tmp_path / "CHGCAR")
    done = prepare_files(
        None, tmp_path / "CHGCAR", options=IngestOptions(texts="none", recipes=("paper-total",), slim=True)
    )
    assert done.data is not None, done
    [kept] = done.data.densities
    assert kept.values.shape == (60, 60, 60)
    assert kept.n_electrons == pytest.approx(14, rel=1e-5)
