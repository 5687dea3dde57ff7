"""Tests of the schema: state, upgrades, downgrades and concurrent processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from registry.database import connect
from registry.errors import ConfigurationError, SchemaBehindError
from registry.postgres import embedded, schema
from registry.postgres.schema import downgrade, schema_status, upgrade
from registry.settings import Settings


def test_a_migrated_database_is_current(engine: Engine) -> None:
    status = schema_status(engine)
    assert (status.state, status.revision, status.surface_current) == ("current", status.head, True)
    assert status.server_version.startswith("18.")
    assert status.vector_version == "0.8.6"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "UPDATE alembic_version SET version_num = '9999'",
            "revision 9999, but .*update ecdreg",
        ),
        ("DROP TABLE alembic_version", "no schema yet; run `ecdreg db upgrade`"),
        ("DROP FUNCTION ecdreg_surface()", "views and functions of another version; run `ecdreg db upgrade`"),
    ],
)
def test_a_schema_of_another_version_on_a_server_of_the_user(
    settings: Settings, engine: Engine, change: str, message: str
) -> None:
    with engine.begin() as connection:
        connection.execute(text(change))
    with pytest.raises(SchemaBehindError, match=message):
        connect(settings)
    connect(settings, check_schema=False).dispose()


def test_a_newer_schema_is_not_touched(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaBehindError, match="9999"):
        upgrade(engine)


def test_an_upgrade_waits_for_locks_only_briefly(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "LOCK_SECONDS", 1)
    with engine.connect() as reader:
        reader.execute(text("SELECT count(*) FROM v_materials"))  # its transaction stays open
        with pytest.raises(SchemaBehindError, match=r"in use by other sessions .* within 1 s; end them"):
            upgrade(engine)
    upgrade(engine)


def test_an_upgrade_creates_a_dropped_view_again(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP VIEW v_ingest_runs"))
    upgrade(engine)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM v_ingest_runs")) == 0


def test_an_embedded_schema_is_upgraded_automatically(open_folder: Path) -> None:
    settings = Settings(home=open_folder / "own home")
    try:
        engine = connect(settings)
        with engine.begin() as connection:
            for statement in (
                "DROP VIEW v_ingest_runs",
                "DROP FUNCTION ecdreg_surface()",
                "CREATE FUNCTION ecdreg_surface() RETURNS text LANGUAGE sql AS $$SELECT 'older'::text$$",
            ):
                connection.execute(text(statement))
        connect(settings).dispose()
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM v_ingest_runs")) == 0
        engine.dispose()
    finally:
        embedded.stop(settings.postgres_data)


def test_concurrent_first_processes_create_one_schema(open_folder: Path) -> None:
    settings = Settings(home=open_folder / "together")
    code = (
        "from pathlib import Path; from registry.database import connect;"
        "from registry.postgres.schema import schema_status;"
        f"from registry.settings import Settings; e = connect(Settings(home=Path({str(settings.home)!r})));"
        "print(schema_status(e).state)"
    )
    try:
        command = [sys.executable, "-c", code]
        racing = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        assert [process.communicate()[0].strip() for process in racing] == ["current"] * 3
        log = (settings.postgres_data / "server.log").read_text()
        assert log.count("database system is ready to accept connections") == 1
    finally:
        embedded.stop(settings.postgres_data)


def test_unknown_revision(engine: Engine) -> None:
    with pytest.raises(ConfigurationError, match="no schema revision 'zz'; there are: base, 0001"):
        downgrade(engine, "zz")
