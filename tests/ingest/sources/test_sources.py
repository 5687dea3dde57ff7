"""Sources: what a dataset folder may hold, and what is said of one that cannot be used."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest

from ingest.sources import SOURCES, open_source
from ingest.sources.folder import FolderRecord, FolderSource
from registry.errors import ConfigurationError, InputError, SourceError, UnknownNameError

HEAD = "id,formula,k_vrh\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset folder of two crystals without files."""
    folder = tmp_path / "My Data"
    folder.mkdir()
    (folder / "properties.csv").write_text(HEAD + "a,NaCl,24.5\nb,NaN,\n", encoding="utf-8")
    return folder


def record(folder: Path, ident: str) -> FolderRecord:
    return next(record for record in FolderSource(folder).records() if record.source_id == ident)


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_names(folder: Path) -> None:
    assert open_source(f"{folder}/").name == "my-data"
    assert open_source(str(folder), name="Run 2").name == "run-2"
    assert "sample" in SOURCES
    with pytest.raises(UnknownNameError, match="did you mean 'sample'"):
        open_source("sampel")
    with pytest.raises(UnknownNameError, match="there are: mp, sample"):
        open_source("elsewhere")
    for taken in ("sample", "mp"):
        with pytest.raises(ConfigurationError, match="another --name"):
            open_source(str(folder), name=taken)
    with pytest.raises(ConfigurationError, match="--name is for a folder"):
        open_source("sample", name="x")
    with pytest.raises(ConfigurationError, match="letters"):
        open_source(str(folder), name="///")


def test_a_folder_needs_a_slash(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(UnknownNameError, match="My Data/"):
        open_source("My Data")
    assert len(open_source("My Data/")) == 2


def test_rows_become_records(folder: Path) -> None:
    first, second = FolderSource(folder).records()
    raw = first.read(level_of_theory="PBEsol, VASP")
    (value,) = raw.properties
    assert (value.name, value.value, value.level_of_theory) == ("k_vrh", 24.5, "PBEsol")
    assert raw.structure is None
    assert raw.problems == ()
    # Sodium nitride is no missing value, an empty cell is one.
    assert second.read().formula == "NaN"
    assert second.read().properties == ()
    assert pickle.loads(pickle.dumps(first)) == first  # what a worker process gets


def test_level_of_theory_of_a_row_wins(folder: Path) -> None:
    write(folder / "properties.csv", "id,formula,level_of_theory,efermi\na,NaCl,r2SCAN,1\nb,KCl,,2\n")
    levels = [
        next(iter(r.read(level_of_theory="LDA").properties)).level_of_theory for r in FolderSource(folder).records()
    ]
    assert levels == ["r2SCAN", "LDA"]
    assert next(iter(record(folder, "b").read().properties)).level_of_theory == "unspecified"


@pytest.mark.parametrize("cell", ["abc", "1,5", "nan", "inf", "12 GPa"])
def test_a_property_that_is_no_number_is_a_problem_of_its_crystal(folder: Path, cell: str) -> None:
    write(folder / "properties.csv", f'id,formula,k_vrh,efermi\na,NaCl,"{cell}",1.5\nb,KCl,17,2.5\n')
    raw = record(folder, "a").read()
    assert len(raw.problems) == 1
    assert "k_vrh" in raw.problems[0]
    assert repr(cell) in raw.problems[0]
    assert [value.name for value in raw.properties] == ["efermi"]
    assert record(folder, "b").read().problems == ()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("formula,k_vrh\nNaCl,1\n", "no column 'id'"),
        ("id,k_vrh\na,1\n", "no column 'formula'"),
        ("id,formula,k_vrh,k_vrh\na,NaCl,1,2\n", "'k_vrh' twice"),
        ("id,formula\na,NaCl\na,KCl\n", "id 'a' twice, in lines 2 and 3"),
        ("id,formula\na,NaCl\n,KCl\n", "line 3 .* has no id"),
        ("", "is empty"),
        ('id,formula\na,"NaCl\n', "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_is_an_error_with_its_name(folder: Path, table: str, message: str) -> None:
    write(folder / "properties.csv", table)
    with pytest.raises(SourceError, match=message) as caught:
        FolderSource(folder)
    assert str(folder / "properties.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder_table_or_encoding(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is not a folder"):
        open_source(f"{tmp_path}/nowhere/")
    (folder / "properties.csv").write_bytes(HEAD.encode() + b"a,Na\xffCl,1\n")
    with pytest.raises(SourceError, match=r"properties\.csv cannot be read"):
        FolderSource(folder)
    (folder / "properties.csv").unlink()
    with pytest.raises(SourceError, match=r"properties\.csv is missing"):
        FolderSource(folder)


def test_spreadsheets_byte_order_mark_and_blank_lines_are_no_matter(folder: Path) -> None:
    (folder / "properties.csv").write_bytes(b"\xef\xbb\xbfid, formula,k_vrh\r\na,NaCl,1\r\n,,\r\n\r\n")
    assert [record.source_id for record in FolderSource(folder).records()] == ["a"]


def test_columns_and_files_that_are_not_used_are_said_once(folder: Path) -> None:
    write(folder / "properties.csv", "id,formula,kvrh,colour\na,NaCl,1,red\n")
    write(folder / "structures" / "a.cif")
    write(folder / "structures" / "z.cif")
    write(folder / "descriptions.csv", "id,description\na,Salt.\nq,Nothing.\n")
    remarks = FolderSource(folder).remarks
    assert any("kvrh, colour" in remark and "k_vrh" in remark for remark in remarks)
    assert any("z.cif" in remark for remark in remarks)
    assert any("descriptions.csv" in remark and "q" in remark for remark in remarks)
    assert len(remarks) == 3


@pytest.mark.parametrize("ident", ["../a", "a/b", "a\\b", ".hidden", ".."])
def test_ids_cannot_leave_the_folder(folder: Path, ident: str) -> None:
    write(folder / "properties.csv", f"id,formula\n{ident},NaCl\nb,KCl\n")
    with pytest.raises(InputError, match="cannot be part of a file name"):
        record(folder, ident).read()
    assert record(folder, "b").read().formula == "KCl"


def test_a_ragged_row_is_rejected_alone(folder: Path) -> None:
    write(folder / "properties.csv", HEAD + "a,NaCl,1,2\nb,KCl,3\n")
    with pytest.raises(InputError, match=r"line 2 .* has 4 cells, its header 3"):
        record(folder, "a").read()
    assert record(folder, "b").read().properties[0].value == 3


def test_files_are_found_by_id(folder: Path) -> None:
    write(folder / "properties.csv", "id,formula\nmp-1,NaCl\nmp-11,KCl\n")
    files = [
        write(folder / "structures" / "mp-1.vasp"),
        write(folder / "densities" / "mp-1" / "CHGCAR.gz"),
        write(folder / "densities" / "mp-1" / "CHGCAR.reference.gz"),
        write(folder / "images" / "mp-1.png"),
    ]
    found = record(folder, "mp-1")
    assert [*found.structures, *found.densities, *found.companions, *found.images] == files
    other = record(folder, "mp-11")
    assert [*other.structures, *other.densities, *other.companions, *other.images] == []


def test_two_files_of_one_kind_are_not_chosen_from(folder: Path) -> None:
    write(folder / "structures" / "a.cif")
    write(folder / "structures" / "a.vasp")
    with pytest.raises(InputError, match=r"a\.cif and a\.vasp"):
        record(folder, "a").read()


def test_descriptions_say_who_wrote_them(folder: Path) -> None:
    write(folder / "descriptions.csv", "id,description,generator,generator_version\na,Salt.,somebody,2\nb,Other.,,\n")
    by_id = {r.source_id: r.read().description for r in FolderSource(folder).records()}
    assert (by_id["a"].generator, by_id["a"].generator_version) == ("somebody", "2")
    assert (by_id["b"].generator, by_id["b"].generator_version) == ("my-data", None)
    write(folder / "descriptions.csv", "id,text\na,Salt.\n")
    with pytest.raises(SourceError, match=r"descriptions\.csv has no column 'description'"):
        FolderSource(folder)


def test_checksum_follows_everything_that_is_read(folder: Path) -> None:
    write(folder / "structures" / "a.cif", "one")
    seen = {record(folder, "a").input_sha256()}

    def changed() -> None:
        before = len(seen)
        seen.add(record(folder, "a").input_sha256())
        assert len(seen) == before + 1

    assert record(folder, "a").input_sha256() in seen
    write(folder / "structures" / "a.cif", "two")
    changed()
    write(folder / "densities" / "a" / "CHGCAR", "three")
    changed()
    write(folder / "densities" / "a" / "CHGCAR.reference", "four")
    changed()
    write(folder / "densities" / "a.spin.cube", "five")
    changed()
    write(folder / "images" / "a.npy", "six")
    changed()
    write(folder / "descriptions.csv", "id,description\na,Salt.\n")
    changed()
    write(folder / "properties.csv", HEAD + "a,NaCl,25\n")
    changed()
    # What is not used does not count.
    write(folder / "properties.csv", "id,formula,k_vrh,colour\na,NaCl,25,red\n")
    assert record(folder, "a").input_sha256() in seen


def test_listing_a_source_imports_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys; from ingest.sources import open_source; from ingest.preparation.options import IngestOptions;"
        "from ingest.preparation.checksums import input_sha256;"
        "source = open_source('sample'); options = IngestOptions(fcc=True);"
        "print(len({input_sha256(record, options) for record in source.records()}),"
        " sorted({'pymatgen', 'scipy', 'spglib', 'h5py', 'robocrys', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["200", "[]"]
