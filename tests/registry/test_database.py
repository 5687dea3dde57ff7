"""Tests of the connection: URLs, unsuitable servers, schemas of other versions, restarts."""

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

from registry.database import connect, connection_url, session_scope
from registry.errors import (
    ConfigurationError,
    DatabaseUnreachableError,
    SchemaBehindError,
    UnsuitableServerError,
)
from registry.models import Crystal
from registry.postgres import embedded, schema
from registry.postgres.connections import RESTART_SECONDS, masked_url, new_engine
from registry.postgres.embedded import EmbeddedServer
from registry.postgres.schema import SchemaStatus, downgrade, schema_status, upgrade
from registry.settings import Settings


def user_server(url: str) -> Settings:
    """Settings with a server of the user."""
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
    def test_libpq_and_sqlalchemy_forms_are_equivalent(self, url: str) -> None:
        found = connection_url(user_server(url))
        assert (found.drivername, found.username, found.password) == ("postgresql+psycopg", "me", "se@cret")
        assert (found.host, found.port, found.database, found.query["sslmode"]) == (
            "db.example",
            5433,
            "reg",
            "require",
        )

    @pytest.mark.parametrize("url", ["mysql://me:secret@db/reg", "me:secret@db", "postgresql://me:secret@db:port/reg"])
    def test_an_invalid_url_is_refused_without_printing_it(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="ECDREG_DATABASE_URL") as caught:
            connect(user_server(url))
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None

    @pytest.mark.parametrize("url", ["postgresql://me:secret@db/reg", "postgresql://db/reg?user=me&password=secret"])
    def test_the_password_is_masked(self, url: str) -> None:
        masked = masked_url(connection_url(user_server(url)))
        assert "secret" not in masked
        assert "***" in masked


class TestServers:
    def test_a_server_that_does_not_answer(self) -> None:
        with pytest.raises(
            DatabaseUnreachableError, match=r"no database at postgresql://me:\*\*\*@127.0.0.1:9/reg: .*refused"
        ):
            connect(user_server("postgresql://me:secret@127.0.0.1:9/reg"))

    def test_a_database_that_does_not_exist(self, cluster: EmbeddedServer) -> None:
        with pytest.raises(DatabaseUnreachableError, match=r"\"nowhere\" does not exist"):
            connect(user_server(cluster.url("nowhere")))

    def test_a_lost_connection(self, engine: Engine, new_database: Callable[[], str]) -> None:
        with engine.connect() as connection:
            name = connection.scalar(text("SELECT current_database()"))
        with psycopg.connect(new_database(), autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            with pytest.raises(DatabaseUnreachableError, match="not currently accepting connections"):
                schema_status(engine)
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    def test_without_pgvector_an_ordinary_role_gets_the_command_for_an_administrator(self, plain: str) -> None:
        message = r"'plain' has no extension `vector`.*`CREATE EXTENSION vector`"
        with pytest.raises(UnsuitableServerError, match=message):
            connect(user_server(plain))
        engine = connect(user_server(plain), check_schema=False)
        with pytest.raises(UnsuitableServerError, match=message):
            upgrade(engine)
        engine.dispose()

    def test_an_ordinary_role_upgrades_once_the_extension_is_there(self, plain: str, cluster: EmbeddedServer) -> None:
        with psycopg.connect(cluster.url("plain"), autocommit=True) as admin:
            admin.execute("CREATE EXTENSION vector")
        with pytest.raises(SchemaBehindError, match=r"no schema yet; run `ecdreg db upgrade`"):
            connect(user_server(plain))
        engine = connect(user_server(plain), check_schema=False)
        upgrade(engine)
        connect(user_server(plain)).dispose()
        assert schema_status(engine).state == "current"
        downgrade(engine, "base")
        assert schema_status(engine).state == "empty"
        assert schema_status(engine).vector_version is not None  # the administrator's extension stays
        engine.dispose()

    @pytest.fixture
    def plain(self, cluster: EmbeddedServer) -> Iterator[str]:
        """URL of a database without pgvector, for a role that owns it and has no other privileges."""
        with psycopg.connect(cluster.url("postgres"), autocommit=True) as admin:
            admin.execute("CREATE ROLE ordinary LOGIN")
            admin.execute("CREATE DATABASE plain OWNER ordinary")
            yield cluster.url("plain").replace("postgres@", "ordinary@")
            admin.execute("DROP DATABASE plain WITH (FORCE)")
            admin.execute("DROP ROLE ordinary")


class TestStoppedServer:
    """Another process runs ``ecdreg db stop`` during the work."""

    @pytest.fixture
    def settings(self, open_folder: Path) -> Iterator[Settings]:
        settings = Settings(home=open_folder / "stopped server")
        yield settings
        embedded.stop(settings.postgres_data)

    @pytest.mark.parametrize("when", ["before the first connection", "between two queries"])
    def test_connecting(self, settings: Settings, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
        connect(settings).dispose()
        called: list[str] = []

        def stopping(original: Callable[..., Any]) -> Callable[..., Any]:
            def first_call(*arguments: Any, **options: Any) -> Any:
                found = original(*arguments, **options)
                if not called:
                    called.append(when)
                    assert embedded.stop(settings.postgres_data)
                return found

            return first_call

        if when == "before the first connection":
            monkeypatch.setattr(embedded, "start", stopping(embedded.start))
        else:
            monkeypatch.setattr(schema, "revisions", stopping(schema.revisions))
        engine = connect(settings)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT count(*) FROM crystals")) == 0
        engine.dispose()
        assert called

    def test_a_stop_during_a_query(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        connect(settings).dispose()
        original, called = schema._status, list[bool]()

        def status(connection: Connection) -> SchemaStatus:
            if not called:
                called.append(True)
                assert embedded.stop(settings.postgres_data)
            return original(connection)

        monkeypatch.setattr(schema, "_status", status)
        connect(settings).dispose()
        assert called

    def test_a_command_continues_with_its_next_connection(self, settings: Settings) -> None:
        engine = connect(settings)
        with engine.connect() as connection:
            connection.execute(text("CREATE TABLE kept AS SELECT 1 AS n"))
            connection.commit()
        assert embedded.stop(settings.postgres_data)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT n FROM kept")) == 1
        engine.dispose()

    def test_a_server_that_waits_for_clients_is_reported(
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

    def test_an_error_that_a_restart_does_not_solve_is_raised_at_once(self, settings: Settings) -> None:
        engine = connect(settings)
        with engine.begin() as connection:
            connection.execute(text("CREATE ROLE nobody_logs_in NOLOGIN"))
        other = new_engine(engine.url.set(username="nobody_logs_in"), "ecdreg", settings.postgres_data)
        began = time.monotonic()
        with pytest.raises(OperationalError, match="is not permitted to log in"):
            other.connect()
        assert time.monotonic() - began < RESTART_SECONDS / 2
        engine.dispose()


class TestUse:
    def test_scope_commits_at_its_end_and_rolls_back_after_an_exception(self, engine: Engine) -> None:
        with session_scope(engine) as session:
            kept = Crystal(source="a", source_id="x1", material_key="x1")
            session.add(kept)
        with pytest.raises(RuntimeError, match="power cut"), session_scope(engine) as session:
            _write_and_fail(session)
        assert kept.source_id == "x1"  # still readable
        with Session(engine) as session:
            assert session.scalars(text("SELECT source_id FROM crystals")).all() == ["x1"]

    def test_connections_have_an_application_name(self, settings: Settings) -> None:
        engine = connect(settings, application_name="ecdreg train")
        with engine.connect() as connection:
            assert connection.scalar(text("SHOW application_name")) == "ecdreg train"
        engine.dispose()

    def test_joining_a_current_database_is_fast_and_does_not_import_alembic(self, cluster: EmbeddedServer) -> None:
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
        assert float(seconds) < 0.1  # about 0.01 s

    def test_an_embedded_home_needs_no_network_port(self, cluster: EmbeddedServer) -> None:
        with psycopg.connect(cluster.url("postgres")) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def _write_and_fail(session: Session) -> None:
    session.add(Crystal(source="a", source_id="x2", material_key="x2"))
    session.flush()
    raise RuntimeError("power cut")
