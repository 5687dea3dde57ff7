"""Fixtures of all tests: a database and a home folder for each test, and no network.

One embedded PostgreSQL cluster serves the session. It is in a temporary folder, and is stopped at the end
of the session, also after failures. Its database is migrated once. Each test that uses ``engine`` gets a
clone of that database, so that tests may commit.
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
from typing import Protocol, TypeAlias

import hypothesis
import numpy as np
import psycopg
import pytest
from psycopg.rows import TupleRow
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from registry.database import DATABASE, connect
from registry.postgres import embedded
from registry.postgres.embedded import EmbeddedServer
from registry.settings import Settings

# Model hubs are not contacted, also not by worker processes, which the fixture _no_network does not cover.
os.environ["HF_HUB_OFFLINE"] = "1"

hypothesis.settings.register_profile("ecdreg", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ecdreg")

LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1", "", None}

InternetAddress: TypeAlias = "tuple[str | bytes | None, int]"


@dataclass(frozen=True)
class Invocation:
    """Exit code and output of a command."""

    exit_code: int
    stdout: str
    stderr: str


class Invoke(Protocol):
    """Runs the command line with the given arguments."""

    def __call__(self, *arguments: object) -> Invocation: ...


@dataclass
class Clones:
    """Creates clones of the migrated database."""

    server: EmbeddedServer
    admin: psycopg.Connection[TupleRow]
    finished: list[str] = field(default_factory=list)
    """Databases to drop before the next clone is created, when their connections are closed."""
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
    """Remove the user's settings from the environment, and keep tests away from the user's state."""
    for name in list(os.environ):
        if name.startswith(("ECDREG_", "PG")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ECDREG_HOME", str(home))


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Seed every random generator; that of torch only if a test has imported it."""
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that connects to another machine, even if the code under test catches the error."""
    if request.node.get_closest_marker("live"):
        yield
        return
    attempts: list[str] = []

    def refuse_remote(host: str | bytes | None) -> None:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in LOCAL_HOSTS:
            attempts.append(str(name))
            raise OSError(f"tests do not connect to {name}")

    def guarded(name: str) -> Callable[[socket.socket, InternetAddress], object]:
        original = getattr(socket.socket, name)

        def method(self: socket.socket, address: InternetAddress) -> object:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                refuse_remote(address[0])
            result: object = original(self, address)
            return result

        return method

    lookup = socket.getaddrinfo

    def getaddrinfo(
        host: str | bytes | None, port: str | int | None, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> object:
        refuse_remote(host)
        return lookup(host, port, family, type, proto, flags)

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(name))
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield
    if attempts:
        pytest.fail(f"tried to reach {', '.join(sorted(set(attempts)))}")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The ``ECDREG_HOME`` of this test; not created yet."""
    return tmp_path / "home"


@pytest.fixture
def settings(home: Path, cluster_url: str) -> Settings:
    """Settings with the home and the database of this test."""
    return Settings(home=home, database_url=cluster_url)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    """Engine of an empty, migrated database of this test, which may commit."""
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
def invoke(cluster_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    """Run the command line in this process, with its error handling, on the database of :func:`engine`."""
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
    """libpq URL of an empty, migrated database of this test."""
    return new_database()


@pytest.fixture
def new_database(clones: Clones) -> Iterator[Callable[[], str]]:
    """Create an empty, migrated database at each call; they are dropped after the test."""
    names: list[str] = []

    def make() -> str:
        names.append(clones.make())
        return clones.server.url(names[-1])

    yield make
    clones.finished += names


@pytest.fixture(scope="session")
def clones(cluster: EmbeddedServer) -> Iterator[Clones]:
    """Source of databases for fixtures of a wider scope; see :meth:`Clones.make`."""
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as admin:
        yield Clones(cluster, admin)


@pytest.fixture(scope="session")
def cluster(open_folder: Path) -> Iterator[EmbeddedServer]:
    """The embedded cluster of the session, with one migrated database to clone."""
    settings = Settings(home=open_folder)
    try:
        connect(settings).dispose()
        server = embedded.start(settings.postgres_data)
        with psycopg.connect(server.url("postgres"), autocommit=True) as admin:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):  # the cluster is deleted at the end
                admin.execute(f"ALTER SYSTEM SET {setting} = off")
            admin.execute("SELECT pg_reload_conf()")
        yield server
    finally:
        embedded.stop(settings.postgres_data)


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A temporary folder that the user of the server can enter; pytest's own folders (0700) are closed to it.

    It is in memory if there is room: a clone of the database takes 0.03 s there, and 0.1 to 1 s on a disk.
    """
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 << 30
    folder = Path(tempfile.mkdtemp(prefix="ecdreg-tests-", dir=memory if roomy else None))
    folder.chmod(0o711)
    yield folder
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
