"""``ecdreg db`` on the embedded database and on a server of one's own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import ProgrammingError

from registry.postgres import embedded

if TYPE_CHECKING:
    from tests.conftest import Invoke


@pytest.fixture
def own_home(open_folder: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke) -> Iterator[Path]:
    """A home without a database, with the embedded database selected."""
    home = open_folder / "home of cmd_db"
    monkeypatch.delenv("ECDREG_DATABASE_URL")
    monkeypatch.setenv("ECDREG_HOME", str(home))
    yield home
    embedded.stop(home / "pg18")


def test_the_embedded_database_from_nothing_to_stopped(invoke: Invoke, own_home: Path) -> None:
    answer = invoke("db", "status")
    assert answer.exit_code == 3
    assert "running     no" in answer.stdout
    assert "not made yet" in answer.stderr
    assert not own_home.exists()

    answer = invoke("db", "start")
    assert answer.exit_code == 0
    assert f"running: {own_home}/pg18" in answer.stdout
    assert answer.stderr == f"making the embedded database in {own_home}/pg18\n"

    answer = invoke("db", "status", "--json")
    assert answer.exit_code == 0
    status = json.loads(answer.stdout)
    assert (status["kind"], status["running"], status["schema"]) == ("embedded", True, "current")
    assert status["pgvector"] == "0.8.6"
    assert invoke("db", "url").stdout.strip() == status["url"]
    assert json.loads(invoke("db", "url", "--json").stdout) == {"url": status["url"]}

    assert invoke("db", "upgrade").stdout == f"the schema is already at revision {status['head']}\n"
    assert invoke("db", "stop").stdout == f"stopped: {own_home}/pg18\n"
    assert invoke("db", "stop").stdout == f"was not running: {own_home}/pg18\n"
    assert "not running" in invoke("db", "status").stderr


def test_status_of_an_own_server(invoke: Invoke, engine: Engine) -> None:
    answer = invoke("db", "status")
    assert answer.exit_code == 0
    assert "kind        own server" in answer.stdout
    assert "schema      current" in answer.stdout


def test_schema_behind_on_an_own_server(invoke: Invoke, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP FUNCTION ecdreg_surface()"))
    answer = invoke("split", "list")
    assert answer.exit_code == 4
    assert answer.stderr.endswith("run `ecdreg db upgrade`\n")
    answer = invoke("db", "status")
    assert (answer.exit_code, answer.stderr) == (4, "run `ecdreg db upgrade`\n")
    assert "schema      behind" in answer.stdout
    assert invoke("db", "upgrade").exit_code == 0
    assert invoke("split", "list").exit_code == 0


def test_a_missing_extension_is_reported(invoke: Invoke, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP EXTENSION vector CASCADE"))
    answer = invoke("db", "status")
    assert "no extension `vector`" in answer.stderr
    assert answer.exit_code == 3
    answer = invoke("split", "list")
    assert answer.exit_code == 4
    assert answer.stderr.count("\n") == 1


def test_only_the_embedded_server_is_stopped(invoke: Invoke, engine: Engine) -> None:
    answer = invoke("db", "stop")
    assert answer.exit_code == 2
    assert "server of your own" in answer.stderr


def test_downgrade_requires_confirmation(invoke: Invoke, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    answer = invoke("db", "downgrade", "base")
    assert answer.exit_code == 1
    assert invoke("db", "status").exit_code == 0
    assert invoke("db", "downgrade", "base", "--yes").exit_code == 0
    assert invoke("db", "status").exit_code == 4
    assert invoke("db", "downgrade", "zz", "--yes").exit_code == 2


class RunShell(Protocol):
    """Runs ``ecdreg db shell`` with arguments and an input."""

    def __call__(self, *arguments: str, input: str = "") -> subprocess.CompletedProcess[str]: ...


class TestShell:
    @pytest.fixture
    def shell(self, engine: Engine, cluster_url: str) -> RunShell:
        """Runs ``ecdreg db shell`` as a process: psql writes past Python's stdout."""

        def run(*arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-c", "from cli.main import run; run()", "db", "shell", *arguments],
                env=os.environ | {"ECDREG_DATABASE_URL": cluster_url},
                input=input,
                capture_output=True,
                text=True,
                check=False,
            )

        return run

    def test_runs_sql(self, shell: RunShell) -> None:
        done = shell("-c", "SELECT 6 * 7 AS answer", "-c", "SELECT count(*) FROM v_leaderboard")
        assert done.returncode == 0
        assert "42" in done.stdout
        assert shell("--csv", "-c", "SELECT 1 AS a, 'x,y' AS b").stdout == 'a,b\n1,"x,y"\n'
        assert "42" in shell(input="SELECT 6 * 7;").stdout

    def test_failures(self, shell: RunShell) -> None:
        done = shell("-c", "SELECT * FROM similar_crystals('zz')")
        assert done.returncode == 1
        assert done.stderr.splitlines()[0] == "ERROR:  no crystal 'zz'"
        assert "CONTEXT" not in done.stderr
        assert shell(input="SELECT nonsense;").returncode == 1


def test_grants(invoke: Invoke, engine: Engine, cluster_url: str) -> None:
    roles = ("dora", "emil", "ecdreg_reader", "ecdreg_writer")
    try:
        answer = invoke("db", "grant-reader", "dora")
        assert answer.exit_code == 0
        assert answer.stdout == "dora reads the registry as a member of ecdreg_reader\n"
        assert "dora is new and has no password" in answer.stderr
        assert invoke("db", "grant-reader").stdout == "ecdreg_reader reads the registry\n"
        answer = invoke("db", "grant-writer", "emil")
        assert answer.stdout == "emil reads and writes the registry as a member of ecdreg_writer\n"
        theirs = create_engine(cluster_url.replace("postgresql://postgres@", "postgresql+psycopg://dora@"))
        with theirs.connect() as dora:
            assert dora.scalar(text("SELECT count(*) FROM v_materials")) == 0
            with pytest.raises(ProgrammingError, match="permission denied"):
                dora.execute(text("DELETE FROM crystals"))
        theirs.dispose()
        assert invoke("db", "grant-reader", "postgres").exit_code == 2
    finally:
        with engine.begin() as connection:
            for role in roles:
                if connection.scalar(text("SELECT true FROM pg_roles WHERE rolname = :r"), {"r": role}):
                    connection.execute(text(f"DROP OWNED BY {role}; DROP ROLE {role}"))
