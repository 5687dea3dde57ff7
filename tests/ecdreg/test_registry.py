"""Class Registry: opening, reading, and the main job from Python."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ecdreg import Registry
from registry.crystals import CrystalData, PropertyData, write_crystal
from registry.database import session_scope
from registry.encoders import EncoderKey, ensure_encoder, set_encoder_alias, write_embeddings
from registry.errors import ConfigurationError, NotFoundError, QueryError, UnknownNameError
from registry.files.grids import GridStore
from registry.provenance import finish_run, start_run


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def registry(engine: Engine, home: Path, cluster_url: str) -> Iterator[Registry]:
    """Three crystals that are known by their formula alone, with vectors 45° apart."""
    known = {"a": ("TiC", 250.0, [1.0, 0.0]), "b": ("TiN", 270.0, [1.0, 1.0]), "c": ("NaCl", 24.0, [0.0, 1.0])}
    with session_scope(engine) as session:
        run = start_run(session, source="test", source_release=None, parameters={})
        encoder = ensure_encoder(
            session,
            EncoderKey(weights_sha256=sha("plane"), preprocessing={}),
            name="plane",
            modality="composition",
            dim=2,
        )
        set_encoder_alias(session, "default", encoder)
        for ident, (formula, k_vrh, vector) in known.items():
            data = CrystalData(
                "test", ident, formula, None, None, None, None, None, None, sha(ident),
                properties=(PropertyData("k_vrh", k_vrh, "GGA"),),
            )  # fmt: skip
            written = write_crystal(session, data, run_id=run.id, grids=GridStore((home / "grids").as_uri()))
            write_embeddings(session, encoder, [(written.revision_id, vector, sha(ident))])
        finish_run(session, run)
    with Registry.open(home=home, url=cluster_url) as opened:
        yield opened


def test_open_takes_home_and_url(home: Path, cluster_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Registry.open(home=home, url=cluster_url) as registry:
        assert (registry.settings.home, registry.settings.database_url) == (home, cluster_url)
        assert registry.sql("SELECT 1 AS one") == [{"one": 1}]
    monkeypatch.setenv("ECDREG_DATABASE_URL", cluster_url)
    with Registry.open() as registry:
        assert registry.settings.home == home  # of the environment


def test_materials_are_filtered(registry: Registry) -> None:
    assert [m["source_id"] for m in registry.materials()] == ["a", "b", "c"]
    (found,) = registry.materials("k_vrh > 100 AND 'N' = ANY(elements)")
    assert (found["formula"], found["k_vrh"], found["elements"]) == ("TiN", 270.0, ["N", "Ti"])
    with pytest.raises(QueryError, match="k_vrh"):
        registry.materials("k_vhr > 1")


def test_similar(registry: Registry) -> None:
    found = registry.similar("a", k=5)
    assert [one.source_id for one in found] == ["b", "c"]
    assert found[0].distance == pytest.approx(1 - 2**-0.5, abs=1e-6)
    assert found[1].distance == pytest.approx(1.0)
    assert [one.source_id for one in registry.similar("a", where="k_vrh < 100", encoder="plane")] == ["c"]
    with pytest.raises(NotFoundError, match="'d'"):
        registry.similar("d")


def test_results_become_data_frames(registry: Registry) -> None:
    import pandas

    found = registry.similar("a", k=5)
    frame = pandas.DataFrame(found)
    assert list(frame["source_id"]) == ["b", "c"]
    flat = pandas.DataFrame(found.to_dicts())
    assert list(flat["k_vrh"]) == [270.0, 24.0]
    assert isinstance(found[:1], tuple)
    assert len(found) == len(found.to_dicts()) == 2


def test_a_query_is_one_of_crystal_text_image_and_files(registry: Registry) -> None:
    for arguments in ({}, {"id": "a", "text": "salt"}, {"id": "a", "density": "CHGCAR"}):
        with pytest.raises(ConfigurationError, match="give one of"):
            registry.similar(**arguments)
    with pytest.raises(ConfigurationError, match="the reference CHGCAR belongs to a density"):
        registry.similar("a", reference="CHGCAR")
    with pytest.raises(ConfigurationError, match="not both"):
        registry.predict("stacked")
    with pytest.raises(ConfigurationError, match="all encoders"):
        registry.drop_indexes()
    with pytest.raises(ConfigurationError, match="replace is 3"):
        registry.propose(replace=3)


def test_sql_reads_and_cannot_write(registry: Registry) -> None:
    rows = registry.sql("SELECT formula FROM v_materials WHERE k_vrh > :least ORDER BY 1", least=100)
    assert rows == [{"formula": "TiC"}, {"formula": "TiN"}]
    with pytest.raises(SQLAlchemyError, match="read-only"):
        registry.sql("DELETE FROM crystals RETURNING id")
    assert len(registry.materials()) == 3


def test_leaderboard(registry: Registry) -> None:
    assert list(registry.leaderboard()) == list(registry.leaderboard(targets=["k_vrh"])) == []
    with pytest.raises(UnknownNameError, match="k_vrh"):
        registry.leaderboard(targets=["k_vhr"])


@pytest.mark.slow
def test_ingest_train_predict(home: Path, cluster_url: str) -> None:
    """The main job on part of the sample, with the baselines alone."""
    with Registry.open(home=home, url=cluster_url) as registry:
        report = registry.ingest("sample", limit=60, workers=0, recipes=(), texts="source").report
        assert report.in_registry == len(registry.materials()) > 40
        registry.create_split("bare", targets=["k_vrh"], recipe=None, text_level=None)
        trained = registry.train("baseline", targets=["k_vrh"], split="bare")
        assert {one.name for one in trained.experiments} == {"baseline-mean", "baseline-magpie"}
        rmse = {row.model: row.cv_rmse for row in trained.leaderboard}
        assert rmse["baseline-magpie"] < rmse["baseline-mean"]
        idents = [m["source_id"] for m in registry.materials()][:3]
        predictions = registry.predict("baseline-magpie", idents)
        assert [one.id for one in predictions] == [f"sample:{ident}" for ident in idents]
        assert all(one.unit == "GPa" and 0 < one.predicted < 500 for one in predictions)
        with pytest.raises(NotFoundError):
            registry.predict("baseline-magpie", ["mp-none"])
