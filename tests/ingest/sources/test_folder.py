"""Dataset folders: tables, files, and messages for those that cannot be used."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from ingest.sources import open_source
from ingest.sources.folder import FolderRecord, FolderSource
from registry.errors import InputError, SourceError

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


def test_rows_become_records(folder: Path) -> None:
    first, second = FolderSource(folder).records()
    raw = first.read(level_of_theory="PBEsol, VASP")
    (value,) = raw.properties
    assert (value.name, value.value, value.level_of_theory) == ("k_vrh", 24.5, "PBEsol")
    assert raw.structure is None
    assert raw.problems == ()
    # The formula of sodium nitride, NaN, is not a missing value; an empty cell is.
    assert second.read().formula == "NaN"
    assert second.read().properties == ()
    assert pickle.loads(pickle.dumps(first)) == first  # records are sent to worker processes


def test_level_of_theory_of_a_row_takes_precedence(folder: Path) -> None:
    write(folder / "properties.csv", "id,formula,level_of_theory,efermi\na,NaCl,r2SCAN,1\nb,KCl,,2\n")
    levels = [
        next(iter(r.read(level_of_theory="LDA").properties)).level_of_theory for r in FolderSource(folder).records()
    ]
    assert levels == ["r2SCAN", "LDA"]
    assert next(iter(record(folder, "b").read().properties)).level_of_theory == "unspecified"


@pytest.mark.parametrize("cell", ["abc", "1,5", "nan", "inf", "12 GPa"])
def test_property_that_is_not_a_number_is_a_problem_of_its_crystal(folder: Path, cell: str) -> None:
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
def test_unusable_table_is_an_error_with_its_name(folder: Path, table: str, message: str) -> None:
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


def test_byte_order_mark_and_blank_lines_are_ignored(folder: Path) -> None:
    (folder / "properties.csv").write_bytes(b"\xef\xbb\xbfid, formula,k_vrh\r\na,NaCl,1\r\n,,\r\n\r\n")
    assert [record.source_id for record in FolderSource(folder).records()] == ["a"]


def test_unused_columns_and_files_are_reported_once(folder: Path) -> None:
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
def test_ids_cannot_point_outside_the_folder(folder: Path, ident: str) -> None:
    write(folder / "properties.csv", f"id,formula\n{ident},NaCl\nb,KCl\n")
    with pytest.raises(InputError, match="cannot name a file"):
        record(folder, ident).read()
    assert record(folder, "b").read().formula == "KCl"


def test_row_with_extra_cells_is_rejected_alone(folder: Path) -> None:
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


def test_two_files_of_one_kind_are_refused(folder: Path) -> None:
    write(folder / "structures" / "a.cif")
    write(folder / "structures" / "a.vasp")
    with pytest.raises(InputError, match=r"a\.cif and a\.vasp"):
        record(folder, "a").read()


def test_descriptions_have_a_generator(folder: Path) -> None:
    write(folder / "descriptions.csv", "id,description,generator,generator_version\na,Salt.,somebody,2\nb,Other.,,\n")
    by_id = {r.source_id: r.read().description for r in FolderSource(folder).records()}
    assert (by_id["a"].generator, by_id["a"].generator_version) == ("somebody", "2")
    assert (by_id["b"].generator, by_id["b"].generator_version) == ("my-data", None)
    write(folder / "descriptions.csv", "id,text\na,Salt.\n")
    with pytest.raises(SourceError, match=r"descriptions\.csv has no column 'description'"):
        FolderSource(folder)


def test_checksum_depends_on_everything_that_is_read(folder: Path) -> None:
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
    # Unused columns do not change the checksum.
    write(folder / "properties.csv", "id,formula,k_vrh,colour\na,NaCl,25,red\n")
    assert record(folder, "a").input_sha256() in seen
