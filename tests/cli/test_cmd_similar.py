"""Similarity search from an id, a sentence and files; what it answers, and how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from registry.database import session_scope
from registry.encoders import ensure_encoder, write_embeddings

Invoke = Callable[..., Any]
PROGRAM = Path(sys.executable).parent / "ecdreg"


def ids(answer: str) -> list[str]:
    return [row["source_id"] for row in json.loads(answer)]


def test_neighbours_come_nearest_first(invoke: Invoke, vectors: dict[str, list[float]]) -> None:
    done = invoke("similar", "mp-1", "-k", 3, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    rows = json.loads(done.stdout)
    assert [r["rank"] for r in rows] == [1, 2, 3]
    assert [r["source_id"] for r in rows] == ["mp-2", "mp-3", "mp-4"]
    # The vectors lie on a circle: cosine distance is 1 - cos(angle).
    for row, angle in zip(rows, (0.05, 0.10, 0.15), strict=True):
        assert row["distance"] == pytest.approx(angle**2 / 2, rel=0.01)
    assert rows[0]["k_vrh"] == 49.0
    assert ids(invoke("similar", "test:mp-1", "-k", 3, "--json").stdout) == ["mp-2", "mp-3", "mp-4"]


def test_filter_goes_into_the_search(invoke: Invoke, vectors: dict[str, list[float]]) -> None:
    done = invoke("similar", "mp-1", "-k", 2, "--where", "k_vrh > 200 AND elements @> ARRAY['Ti']", "--json")
    assert ids(done.stdout) == ["mp-22"]
    nothing = invoke("similar", "mp-1", "--where", "k_vrh > 1e6")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "no crystal passes" in nothing.stderr


def test_table_has_what_a_person_wants(invoke: Invoke, vectors: dict[str, list[float]]) -> None:
    head, first, *_ = invoke("similar", "mp-1", "-k", 2).stdout.splitlines()
    for heading in ("rank", "id", "formula", "distance", "space group", "K_VRH [GPa]"):
        assert heading in head
    assert first.split()[:4] == ["1", "test:mp-2", "NaO", "0.0013"]


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("mp-100",), 1, "mp-100"),
        (("mp-1", "--encoder", "cricle:metric"), 1, "circle:metric"),
        (("mp-1", "--where", "k_vhr > 1"), 1, "k_vrh"),
        (("mp-1", "--where", "1; DROP TABLE crystals"), 1, "filter"),
        (("mp-1", "-k", "0"), 2, "-k"),
        ((), 2, "--text"),
        (("mp-1", "--text", "salt"), 2, "one of"),
        (("--text", "salt", "--density", "CHGCAR"), 2, "one of"),
        (("mp-1", "--reference", "CHGCAR"), 2, "--density"),
        (("--text", "salt"), 1, "circle:metric"),
        (("--text", "salt", "--encoder", "circle:metric"), 1, "modality image"),
        (("--structure", "missing.cif"), 1, "no encoder reads a structure alone"),
    ],
)
def test_errors_name_the_value_and_what_to_do(
    invoke: Invoke, vectors: dict[str, list[float]], arguments: tuple[str, ...], code: int, named: str
) -> None:
    done = invoke("similar", *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert named in done.stderr
    if code == 1:
        assert done.stderr.count("\n") == 1


def test_without_any_encoder(invoke: Invoke, crystals: dict[str, int]) -> None:
    done = invoke("similar", "mp-1")
    assert done.exit_code == 1
    assert "ecdreg train" in done.stderr
    assert "no encoders yet" in invoke("encoders", "list").stderr


def test_encoders_are_listed_and_chosen(
    invoke: Invoke, engine: Engine, crystals: dict[str, int], vectors: dict[str, list[float]]
) -> None:
    with session_scope(engine) as session:
        other = ensure_encoder(
            session, name="line", modality="composition", dim=2, weights_sha256="0" * 64, preprocessing={}
        )
        write_embeddings(
            session, other, [(r, [1.0, float(ident == "mp-9")], "1" * 64) for ident, r in crystals.items()]
        )
    listed = {e["encoder"]: e for e in json.loads(invoke("encoders", "list", "--json").stdout)}
    assert listed["circle:metric"] == {
        "encoder": "circle:metric",
        "modality": "image",
        "dim": 3,
        "recipe": "metric",
        "text_level": None,
        "vectors": 24,
        "frozen": True,
        "aliases": ["default"],
    }
    assert listed["line"]["aliases"] == []
    assert invoke("encoders", "default", "line").exit_code == 0
    assert ids(invoke("similar", "mp-9", "-k", 1, "--json").stdout) == ["mp-1"]
    assert invoke("encoders", "default", "lien").exit_code == 1
    assert "line" in invoke("encoders", "list").stdout


def test_program_is_quick_and_needs_no_torch(
    cluster_url: str, home: Path, vectors: dict[str, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = os.environ | {"ECDREG_DATABASE_URL": cluster_url, "ECDREG_HOME": str(home)}
    began = time.perf_counter()
    done = subprocess.run(
        [PROGRAM, "similar", "mp-1", "-k", "3", "--json"], env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    assert (done.returncode, done.stderr) == (0, "")
    assert ids(done.stdout) == ["mp-2", "mp-3", "mp-4"]
    assert seconds < 10  # far above the second that it may take: the machine may be busy
    traced = subprocess.run(
        [sys.executable, "-X", "importtime", PROGRAM, "similar", "mp-1", "--where", "k_vrh > 100"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in traced.stderr.splitlines()}
    assert "sqlalchemy" in imported
    assert imported & {"torch", "transformers", "pymatgen", "scipy", "matplotlib", "pandas", "sklearn"} == set()


def test_program_fails_with_one_line(cluster_url: str, home: Path, vectors: dict[str, list[float]]) -> None:
    environment = os.environ | {"ECDREG_DATABASE_URL": cluster_url, "ECDREG_HOME": str(home)}
    done = subprocess.run([PROGRAM, "similar", "mp-100"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_database_that_is_down_is_exit_code_3(home: Path) -> None:
    environment = os.environ | {"ECDREG_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "ECDREG_HOME": str(home)}
    done = subprocess.run([PROGRAM, "similar", "mp-1"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def features(engine: Engine, home: Path, cluster_url: str) -> list[str]:
    """Three crystals of the bundled sample with the frozen features of an image and of a text backbone."""
    from ingest.pipeline import IngestOptions, ingest
    from ingest.sources import open_source
    from registry.grids import GridStore
    from registry.image_recipes import find_recipe
    from registry.progress import Silent
    from train.config import TrainConfig
    from train.data import crystal_inputs
    from train.features import FeatureCache

    source = open_source("sample")
    ingest(engine, source, IngestOptions(limit=3, workers=0), grids=GridStore((home / "grids").as_uri()))
    cache = FeatureCache(engine, models=None, progress=Silent())
    with session_scope(engine) as session:
        recipe_id = find_recipe(session, "metric").id
        inputs = crystal_inputs(session, recipe_id=recipe_id, text_level="keywords")
    cache.table(TrainConfig(kind="image", target="k_vrh"), "image", inputs, recipe_id=recipe_id)
    cache.table(TrainConfig(kind="text", target="k_vrh"), "text", inputs, recipe_id=None)
    return [name.partition(":")[2] for name in inputs.source_ids]


@pytest.mark.slow
def test_a_file_finds_itself(invoke: Invoke, features: list[str]) -> None:
    """The file of a crystal gives the vector that the crystal has in the registry: distance 0."""
    folder = Path(__file__).parents[2] / "ingest" / "sample" / "densities"
    for ident in features[:2]:
        done = invoke("similar", "--density", folder / f"{ident}.h5", "-k", 3, "--json")
        assert (done.exit_code, done.stderr) == (0, "encoder: efficientnet_lite0:metric\n")
        nearest, second, _ = json.loads(done.stdout)
        assert nearest["source_id"] == ident
        assert nearest["distance"] == pytest.approx(0.0, abs=1e-5)
        assert second["distance"] > 1e-4


@pytest.mark.slow
def test_a_structure_finds_itself_by_its_text(invoke: Invoke, features: list[str]) -> None:
    folder = Path(__file__).parents[2] / "ingest" / "sample" / "structures"
    done = invoke("similar", "--structure", folder / f"{features[0]}.cif", "--json")
    assert (done.exit_code, done.stderr) == (0, "encoder: minilm:keywords\n")
    nearest = json.loads(done.stdout)[0]
    assert nearest["source_id"] == features[0]
    assert nearest["distance"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.slow
def test_a_sentence_finds_its_crystal(invoke: Invoke, engine: Engine, features: list[str]) -> None:
    """The text of a crystal as a sentence: the default, an image encoder, gives way to one that reads texts."""
    from sqlalchemy import text

    with engine.connect() as connection:
        sentence, ident = connection.execute(
            text(
                "SELECT text, source_id FROM v_materials JOIN descriptions USING (revision_id) WHERE level = 'keywords'"
            )
        ).first()
    done = invoke("similar", "--text", sentence, "-k", 1, "--json")
    assert (done.exit_code, done.stderr) == (0, "encoder: minilm:keywords\n")
    (nearest,) = json.loads(done.stdout)
    assert (nearest["source_id"], nearest["distance"]) == (ident, pytest.approx(0.0, abs=1e-5))
    empty = invoke("similar", "--text", " ")
    assert (empty.exit_code, empty.stdout) == (1, "")
    assert "empty" in empty.stderr


def test_a_file_that_cannot_be_read(
    invoke: Invoke, engine: Engine, vectors: dict[str, list[float]], tmp_path: Path
) -> None:
    broken = tmp_path / "CHGCAR"
    broken.write_text("not a density\n", encoding="utf-8")
    done = invoke("similar", "--density", broken)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("error: CHGCAR")
    assert invoke("similar", "mp-1", "--level-of-theory", "GGA").exit_code == 2
