"""Connecting: URLs, servers that do not do, schemas that do not fit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from registry import database
from registry.database import connect, schema_status, session_scope
from registry.errors import (
    ConfigurationError,
    DatabaseUnreachableError,
    SchemaBehindError,
    UnsuitableServerError,
)
from registry.models import Crystal
from registry.postgres import embedded
from registry.postgres.embedded import EmbeddedServer
from registry.settings import Settings


def own(url: str) -> Settings:
    """Settings with a server of the user's own."""
    return Settings(home=Path("/nonexistent"), database_url=url)


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://me:se%40cret@db.example:5433/reg?sslmode=require",
            "postgres://me:se%40cret@db.example:5433/reg?sslmode=require",
            "postgresql+psycopg://me:se%40cret@db.example:5433/reg?sslmode=require",
            "postgresql+psycopg2://me:se%40cret@db.example:5433/reg?sslmode=require",
        ],
    )
    def test_libpq_and_sqlalchemy_forms_mean_the_same(self, url: str) -> None:
        found = database.connection_url(own(url))
        assert (found.drivername, found.username, found.password) == ("postgresql+psycopg", "me", "se@cret")
        assert (found.host, found.port, found.database, found.query["sslmode"]) == (
            "db.example",
            5433,
            "reg",
            "require",
        )

    @pytest.mark.parametrize("url", ["mysql://me:secret@db/reg", "me:secret@db", "postgresql://me:secret@db:port/reg"])
    def test_what_is_no_url_is_refused_without_showing_it(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="ECDREG_DATABASE_URL") as caught:
            connect(own(url))
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None

    @pytest.mark.parametrize("url", ["postgresql://me:secret@db/reg", "postgresql://db/reg?user=me&password=secret"])
    def test_password_is_not_shown(self, url: str) -> None:
        shown = database.masked_url(database.connection_url(own(url)))
        assert "secret" not in shown
        assert "***" in shown


class TestServers:
    def test_a_database_that_is_down(self) -> None:
        with pytest.raises(
            DatabaseUnreachableError, match=r"no database at postgresql://me:\*\*\*@127.0.0.1:9/reg: .*refused"
        ):
            connect(own("postgresql://me:secret@127.0.0.1:9/reg"))

    def test_a_database_that_does_not_exist(self, cluster: EmbeddedServer) -> None:
        with pytest.raises(DatabaseUnreachableError, match=r"\"nowhere\" does not exist"):
            connect(own(cluster.url("nowhere")))

    def test_a_server_that_goes_away(self, engine: Engine, new_database: Callable[[], str]) -> None:
        with engine.connect() as connection:
            name = connection.scalar(text("SELECT current_database()"))
        with psycopg.connect(new_database(), autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            with pytest.raises(DatabaseUnreachableError, match="not currently accepting connections"):
                schema_status(engine)
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    def test_without_pgvector_an_ordinary_role_is_told_what_an_administrator_does(self, plain: str) -> None:
        message = r"'plain' has no extension `vector`.*`CREATE EXTENSION vector`"
        with pytest.raises(UnsuitableServerError, match=message):
            connect(own(plain))
        engine = connect(own(plain), check_schema=False)
        with pytest.raises(UnsuitableServerError, match=message):
            database.upgrade(engine)
        engine.dispose()

    def test_an_ordinary_role_upgrades_once_the_extension_is_there(self, plain: str, cluster: EmbeddedServer) -> None:
        with psycopg.connect(cluster.url("plain"), autocommit=True) as admin:
            admin.execute("CREATE EXTENSION vector")
        with pytest.raises(SchemaBehindError, match=r"no schema yet; run `ecdreg db upgrade`"):
            connect(own(plain))
        engine = connect(own(plain), check_schema=False)
        database.upgrade(engine)
        connect(own(plain)).dispose()
        assert schema_status(engine).state == "current"
        database.downgrade(engine, "base")
        assert schema_status(engine).state == "empty"
        assert schema_status(engine).vector_version is not None  # the administrator's extension stays
        engine.dispose()

    @pytest.mark.parametrize(
        ("server", "vector", "message"),
        [
            ("14.11", "0.8.6", "PostgreSQL 14.11; ecdreg needs 15"),
            ("17.2 (Debian 17.2-1)", "0.7.4", r"pgvector 0.7.4; ecdreg needs 0.8.0 .*ALTER EXTENSION vector UPDATE"),
        ],
    )
    def test_too_old(self, server: str, vector: str, message: str) -> None:
        with pytest.raises(UnsuitableServerError, match=message):
            database._require_versions(server, vector)

    def test_a_pgvector_with_known_faults_is_warned_of(self) -> None:
        with pytest.warns(UserWarning, match=r"0\.8\.1; 0\.8\.4 and newer"):
            database._require_versions("18.1", "0.8.1")
        database._require_versions("18.1", "0.8.4")

    @pytest.fixture
    def plain(self, cluster: EmbeddedServer) -> Iterator[str]:
        """URL of a database without pgvector, for a role that owns it and may nothing else."""
        with psycopg.connect(cluster.url("postgres"), autocommit=True) as admin:
            admin.execute("CREATE ROLE ordinary LOGIN")
            admin.execute("CREATE DATABASE plain OWNER ordinary")
            yield cluster.url("plain").replace("postgres@", "ordinary@")
            admin.execute("DROP DATABASE plain WITH (FORCE)")
            admin.execute("DROP ROLE ordinary")


class TestSchema:
    def test_a_migrated_database_is_current(self, engine: Engine) -> None:
        status = schema_status(engine)
        assert (status.state, status.revision, status.surface_current) == ("current", status.head, True)
        assert status.server_version.startswith("18.")
        assert status.vector_version == "0.8.6"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ("UPDATE alembic_version SET version_num = '9999'", "revision 9999, this ecdreg knows .*update ecdreg"),
            ("DROP TABLE alembic_version", "no schema yet; run `ecdreg db upgrade`"),
            ("DROP FUNCTION ecdreg_surface()", "views and functions of another version; run `ecdreg db upgrade`"),
        ],
    )
    def test_a_schema_that_does_not_fit_on_an_own_server(
        self, settings: Settings, engine: Engine, change: str, message: str
    ) -> None:
        with engine.begin() as connection:
            connection.execute(text(change))
        with pytest.raises(SchemaBehindError, match=message):
            connect(settings)
        connect(settings, check_schema=False).dispose()

    def test_a_newer_schema_is_not_touched(self, engine: Engine) -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(SchemaBehindError, match="9999"):
            database.upgrade(engine)

    def test_an_upgrade_does_not_wait_for_ever(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database, "LOCK_SECONDS", 1)
        with engine.connect() as reader:
            reader.execute(text("SELECT count(*) FROM v_materials"))  # and its transaction stays open
            with pytest.raises(SchemaBehindError, match=r"in use by other sessions .* within 1 s; end them"):
                database.upgrade(engine)
        database.upgrade(engine)

    def test_an_upgrade_mends_what_was_dropped_by_hand(self, engine: Engine) -> None:
        with engine.begin() as connection:
            connection.execute(text("DROP VIEW v_ingest_runs"))
        database.upgrade(engine)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM v_ingest_runs")) == 0

    def test_an_embedded_schema_is_upgraded_by_itself(self, open_folder: Path) -> None:
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

    def test_processes_that_come_first_together_make_one_schema(self, open_folder: Path) -> None:
        settings = Settings(home=open_folder / "together")
        code = (
            "from pathlib import Path; from registry.database import connect, schema_status;"
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

    def test_unknown_revision(self, engine: Engine) -> None:
        with pytest.raises(ConfigurationError, match="no schema revision 'zz'; there are: base, 0001"):
            database.downgrade(engine, "zz")


class TestStoppedMeanwhile:
    """Somebody runs ``ecdreg db stop`` while others work."""

    @pytest.fixture
    def settings(self, open_folder: Path) -> Iterator[Settings]:
        settings = Settings(home=open_folder / "stopped meanwhile")
        yield settings
        embedded.stop(settings.postgres_data)

    @pytest.mark.parametrize("when", ["before the first connection", "between two questions"])
    def test_connecting(self, settings: Settings, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
        connect(settings).dispose()
        called: list[str] = []

        def stopping(original: Callable[..., Any]) -> Callable[..., Any]:
            def first_of_all(*arguments: Any, **options: Any) -> Any:
                found = original(*arguments, **options)
                if not called:
                    called.append(when)
                    assert embedded.stop(settings.postgres_data)
                return found

            return first_of_all

        if when == "before the first connection":
            monkeypatch.setattr(embedded, "start", stopping(embedded.start))
        else:
            monkeypatch.setattr(database, "_revisions", stopping(database._revisions))
        engine = connect(settings)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM crystals")) == 0
        engine.dispose()
        assert called

    def test_a_cut_in_the_middle_of_a_question(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        connect(settings).dispose()
        original, called = database._status, list[bool]()

        def status(connection: Connection) -> database.SchemaStatus:
            if not called:
                called.append(True)
                assert embedded.stop(settings.postgres_data)
            return original(connection)

        monkeypatch.setattr(database, "_status", status)
        connect(settings).dispose()
        assert called

    def test_a_command_goes_on_with_its_next_connection(self, settings: Settings) -> None:
        engine = connect(settings)
        with engine.connect() as connection:
            connection.execute(text("CREATE TABLE kept AS SELECT 1 AS n"))
            connection.commit()
        assert embedded.stop(settings.postgres_data)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT n FROM kept")) == 1
        engine.dispose()

    def test_a_server_that_waits_for_others_is_told_in_one_line(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = connect(settings)
        monkeypatch.setattr(embedded, "STOP_SECONDS", 0.1)
        with engine.connect():
            pid = embedded.start(settings.postgres_data).pid
            os.kill(pid, signal.SIGTERM)
            while embedded._postmaster(settings.postgres_data) != (pid, "stopping"):
                time.sleep(0.01)
            with pytest.raises(DatabaseUnreachableError, match="shutting down and waits"):
                engine.connect()
        engine.dispose()

    def test_what_starting_again_does_not_mend_is_told_at_once(self, settings: Settings) -> None:
        engine = connect(settings)
        with engine.begin() as connection:
            connection.execute(text("CREATE ROLE nobody_logs_in NOLOGIN"))
        other = database._engine(engine.url.set(username="nobody_logs_in"), "ecdreg", settings.postgres_data)
        began = time.monotonic()
        with pytest.raises(OperationalError, match="is not permitted to log in"):
            other.connect()
        assert time.monotonic() - began < database.RESTART_SECONDS / 2
        engine.dispose()


class TestUse:
    def test_scope_commits_at_its_end_and_not_when_something_is_raised(self, engine: Engine) -> None:
        with session_scope(engine) as session:
            kept = Crystal(source="a", source_id="x1", material_key="x1")
            session.add(kept)
        with pytest.raises(RuntimeError, match="power cut"), session_scope(engine) as session:
            _write_and_fail(session)
        assert kept.source_id == "x1"  # still readable
        with Session(engine) as session:
            assert session.scalars(text("SELECT source_id FROM crystals")).all() == ["x1"]

    def test_connections_carry_a_name(self, settings: Settings) -> None:
        engine = connect(settings, application_name="ecdreg train")
        with engine.connect() as connection:
            assert connection.scalar(text("SHOW application_name")) == "ecdreg train"
        engine.dispose()

    def test_joining_a_current_database_is_quick_and_needs_no_alembic(self, cluster: EmbeddedServer) -> None:
        code = (
            "import sys, time; from pathlib import Path; from registry.database import connect;"
            "from registry.settings import Settings; import psycopg;"
            f"s = Settings(home=Path({str(cluster.data.parent)!r}));"
            "connect(s).dispose();"
            "\ndef join(): t = time.process_time(); connect(s).dispose(); return time.process_time() - t"
            "\nprint(min(join() for _ in range(20)), 'alembic' in sys.modules)"
        )
        seconds, alembic = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        assert alembic == "False"
        assert float(seconds) < 0.1  # 0.01 s; the server's few queries take less

    def test_an_embedded_home_needs_no_network_port(self, cluster: EmbeddedServer) -> None:
        with psycopg.connect(cluster.url("postgres")) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def _write_and_fail(session: Session) -> None:
    session.add(Crystal(source="a", source_id="x2", material_key="x2"))
    session.flush()
    raise RuntimeError("power cut")
