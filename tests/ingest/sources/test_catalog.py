"""Catalog of sources: names, folders, and light imports."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ingest.sources import SOURCES, open_source
from registry.errors import ConfigurationError, UnknownNameError

HEAD = "id,formula,k_vrh\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset folder of two crystals without files."""
    folder = tmp_path / "My Data"
    folder.mkdir()
    (folder / "properties.csv").write_text(HEAD + "a,NaCl,24.5\nb,NaN,\n", encoding="utf-8")
    return folder


def test_sources_are_opened_by_name_or_folder(folder: Path) -> None:
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


def test_path_of_a_folder_needs_a_slash(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    with pytest.raises(UnknownNameError, match="My Data/"):
        open_source("My Data")
    assert len(open_source("My Data/")) == 2


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
