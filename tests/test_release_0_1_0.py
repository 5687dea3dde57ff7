"""A registry of release 0.1.0 opens, is upgraded, and predicts the same."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from registry.crystals import resolve
from registry.database import connect
from registry.model_store import config_sha256, resolve_model
from registry.models import Experiment
from registry.postgres.embedded import EmbeddedServer, binary
from registry.postgres.schema import schema_status
from registry.settings import Settings
from train.config.stored import config_of
from train.config.version1 import to_version_1
from train.experiments.context import ExperimentContext
from train.experiments.run import run_experiment
from train.prediction.predictor import Predictor

FIXTURE = Path(__file__).parent / "fixtures" / "registry-0.1.0"
EXPECTED: dict[str, Any] = json.loads((FIXTURE / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def restored(cluster: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Settings]]:
    """The registry, restored from its dump and upgraded."""
    home = tmp_path_factory.mktemp("release")
    with tarfile.open(FIXTURE / "artifacts.tar.gz") as archive:
        archive.extractall(home, filter="data")
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE release_0_1_0")
        url = cluster.url("release_0_1_0")
        command = [str(binary("pg_restore")), "--no-owner", "--exit-on-error", "--dbname", url]
        subprocess.run([*command, str(FIXTURE / "registry.dump")], check=True, capture_output=True)
        settings = Settings(home=home, database_url=url)
        from registry.postgres.schema import upgrade

        old = connect(settings, check_schema=False)
        assert schema_status(old).state == "behind"
        upgrade(old)
        old.dispose()
        engine = connect(settings)
        yield engine, settings
        engine.dispose()
        admin.execute("DROP DATABASE release_0_1_0 WITH (FORCE)")


def test_every_row_is_still_there(restored: tuple[Engine, Settings]) -> None:
    engine, _ = restored
    assert schema_status(engine).state == "current"
    with engine.connect() as connection:
        counts = {
            table: connection.scalar(text(f"SELECT count(*) FROM {table}"))
            for table in ("crystals", "descriptions", "experiments", "slice_images")
        }
        levels = connection.scalars(text("SELECT DISTINCT text_level FROM descriptions ORDER BY 1")).all()
    assert counts == {"crystals": 24, "descriptions": 72, "experiments": 18, "slice_images": 24}
    assert levels == ["all", "formula", "keywords"]


@pytest.mark.parametrize("name", sorted(EXPECTED["predictions"]))
def test_a_model_predicts_the_same(restored: tuple[Engine, Settings], name: str) -> None:
    engine, settings = restored
    expected = EXPECTED["predictions"][name]
    with Session(engine) as session:
        (model,) = resolve_model(session, f"{name}:k_vrh")
        ids = [resolve(session, ident).revision_id for ident in expected]
        predictor = Predictor.load(session, settings, model)
        session.expunge_all()
    found = predictor.predict_registered(engine, ids, confidence=0.8)
    for ident, one in zip(expected, found, strict=True):
        *before, novelty = expected[ident]
        for value, number in zip([one.value, one.spread, one.lower, one.upper], before, strict=True):
            assert value == (None if number is None else pytest.approx(number, rel=1e-9)), ident
        # The novelty is a ratio of small distances: rounding with another number of threads moves it by 1.4e-9.
        assert one.novelty == (None if novelty is None else pytest.approx(novelty, rel=1e-7)), ident


def test_stored_configurations_are_read(restored: tuple[Engine, Settings]) -> None:
    engine, _ = restored
    with Session(engine) as session:
        for experiment in session.query(Experiment):
            config = config_of(experiment)
            flat = to_version_1(config)
            assert flat == {name: value for name, value in experiment.config.items() if name != "inputs"}
            assert config_sha256({**(flat or {}), "inputs": experiment.config["inputs"]}) == experiment.config_sha256
            assert config.kind == experiment.kind


def test_scores_and_neighbours_are_the_same(restored: tuple[Engine, Settings]) -> None:
    engine, _ = restored
    with engine.connect() as connection:
        board = connection.execute(
            text(
                "SELECT model, kind, cv_rmse, holdout_rmse, cv_coverage, config_sha256 FROM v_leaderboard"
                " ORDER BY model, config_sha256"
            )
        ).all()
        similar = connection.execute(text("SELECT * FROM similar_crystals('mp-1022', k => 5)")).all()
    assert [list(row) for row in board] == EXPECTED["leaderboard"]
    assert [[row.source_id, row.distance] for row in similar] == EXPECTED["similar"]


def test_a_model_of_the_release_is_not_trained_again(restored: tuple[Engine, Settings]) -> None:
    engine, settings = restored
    with Session(engine) as session:
        config = config_of(session.query(Experiment).filter_by(name="composition").first())  # type: ignore[arg-type]
    result = run_experiment(ExperimentContext.open(engine, settings), config, split="default")
    assert result.outcome == "unchanged"
    assert {one.outcome for one in result.prerequisites} == {"unchanged"}
