"""Fixtures of all tests: a real PostgreSQL of their own, a home of their own, no network.

One embedded cluster serves the session, under a temporary folder, and is stopped at its
end whatever happened. Its database is migrated once; each test that asks for ``engine``
gets a clone of it, so that tests may commit.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import psycopg
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from registry.database import DATABASE, connect
from registry.postgres import embedded
from registry.postgres.embedded import EmbeddedServer
from registry.settings import Settings

# Hubs are never asked, not even by worker processes, which the guard below does not reach.
os.environ["HF_HUB_OFFLINE"] = "1"

hypothesis.settings.register_profile("ecdreg", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ecdreg")

LOCAL = {"localhost", "127.0.0.1", "::1", "", None}


@dataclass(frozen=True)
class Invocation:
    """What a command answered."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass
class Clones:
    """Makes clones of the migrated database."""

    server: EmbeddedServer
    admin: psycopg.Connection[Any]
    finished: list[str] = field(default_factory=list)
    """Databases that are dropped at the next occasion, when their connections are surely gone."""
    count: int = 0

    def make(self) -> str:
        """Name of a new clone."""
        while self.finished:
            self.admin.execute(f"DROP DATABASE {self.finished.pop()} WITH (FORCE)")
        self.count += 1
        name = f"test_{self.count}"
        self.admin.execute(f"CREATE DATABASE {name} TEMPLATE {DATABASE} STRATEGY file_copy")
        return name


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """No setting of the user's reaches a test, and no test the user's state."""
    for name in list(os.environ):
        if name.startswith(("ECDREG_", "PG")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ECDREG_HOME", str(home))


@pytest.fixture(autouse=True)
def _same_each_time() -> None:
    """Every generator starts from a fixed seed; torch's only where a test has imported it."""
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that talks to another machine, even where the code under test swallows the refusal."""
    if request.node.get_closest_marker("live"):
        yield
        return
    attempts: list[str] = []

    def refuse(host: object) -> None:
        if isinstance(host, bytes):
            host = host.decode()
        if host not in LOCAL:
            attempts.append(str(host))
            raise OSError(f"tests do not talk to {host}")

    def guarded(name: str) -> Callable[[socket.socket, Any], Any]:
        original = getattr(socket.socket, name)

        def method(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                refuse(address[0])
            return original(self, address)

        return method

    lookup = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        refuse(host)
        return lookup(host, *args, **kwargs)

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(name))
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield
    if attempts:
        pytest.fail(f"tried to reach {', '.join(sorted(set(attempts)))}")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An ``ECDREG_HOME`` of the test's own; not made yet."""
    return tmp_path / "home"


@pytest.fixture
def settings(home: Path, cluster_url: str) -> Settings:
    """Settings with the test's home and database."""
    return Settings(home=home, database_url=cluster_url)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """A clean, migrated database of the test's own; it may commit."""
    engine = connect(settings)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A session on :func:`engine`, rolled back at the end."""
    with Session(engine) as session:
        yield session
        session.rollback()


@pytest.fixture
def invoke(
    cluster_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Invocation]:
    """Run the command line in this process, error boundary included, on the database of :func:`engine`."""
    monkeypatch.setenv("ECDREG_DATABASE_URL", cluster_url)

    def run(*arguments: object) -> Invocation:
        from cli.main import main

        capsys.readouterr()
        exit_code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Invocation(exit_code, captured.out, captured.err)

    return run


@pytest.fixture
def cluster_url(new_database: Callable[[], str]) -> str:
    """libpq URL of a clean, migrated database of the test's own."""
    return new_database()


@pytest.fixture
def new_database(clones: Clones) -> Iterator[Callable[[], str]]:
    """Makes as many clean, migrated databases as a test needs; they are dropped after it."""
    names: list[str] = []

    def make() -> str:
        names.append(clones.make())
        return clones.server.url(names[-1])

    yield make
    clones.finished += names


@pytest.fixture(scope="session")
def clones(cluster: EmbeddedServer) -> Iterator[Clones]:
    """Where tests of a wider scope take a database from: :meth:`Clones.make`."""
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as admin:
        yield Clones(cluster, admin)


@pytest.fixture(scope="session")
def cluster(open_folder: Path) -> Iterator[EmbeddedServer]:
    """An embedded cluster of the session's own, with one migrated database to clone."""
    settings = Settings(home=open_folder)
    try:
        connect(settings).dispose()
        server = embedded.start(settings.postgres_data)
        with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):  # nothing here outlives the session
                admin.execute(f"ALTER SYSTEM SET {setting} = off")
            admin.execute("SELECT pg_reload_conf()")
        yield server
    finally:
        embedded.stop(settings.postgres_data)


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A temporary folder that the server's user can pass, as pytest's own (0700) are not for root's server.

    In memory where there is room: a clone of the database takes 0.03 s there, 0.1 to 1 s on a disk.
    """
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 << 30
    folder = Path(tempfile.mkdtemp(prefix="ecdreg-tests-", dir=memory if roomy else None))
    folder.chmod(0o711)
    yield folder
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
