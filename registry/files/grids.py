"""The grid store: density grids in HDF5 files that are named by their checksum, outside the database.

A grid is stored at ``<sha256[:2]>/<sha256>.h5`` under the root of the store, which is any fsspec URL. The name is the
checksum of the file, so that a grid is written once and damage is detected. The store also contains the entries of
downloaded objects (:mod:`registry.files.object_cache`).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.errors import ArtifactError, ConfigurationError, InputError

__all__ = ["GridStore", "StoredFile", "StoredGrid"]


@dataclass(frozen=True)
class StoredGrid:
    """Path of a grid inside the store, and the checksum of the file."""

    uri: str
    sha256: str


@dataclass(frozen=True)
class StoredFile:
    """A file of the store, of any kind."""

    name: str
    """Path inside the store."""
    bytes: int
    changed: datetime | None
    """Time of the last write or use; None if the file system does not report it."""


class GridStore:
    """A store of periodic grids, named by their checksums.

    Parameters
    ----------
    url
        fsspec URL of the root: ``file:///...``, ``memory://...``, ``s3://...``.

    Notes
    -----
    An instance contains only the URL, so that it can be sent to a worker process.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def put(self, values: NDArray[np.floating[Any]], lattice: NDArray[np.float64]) -> StoredGrid:
        """Store a grid; equal grids are one file.

        Parameters
        ----------
        values
            Shape (n1, n2, n3) [e/Å^3]; float32 or float64, which is preserved.
        lattice
            Shape (3, 3), lattice vectors as rows [Å].

        Raises
        ------
        InputError
            If a shape or the number type is different.
        ConfigurationError
            If the store is not writable.
        """
        data = _to_hdf5(values, lattice)
        sha256 = hashlib.sha256(data).hexdigest()
        uri = f"{sha256[:2]}/{sha256}.h5"
        fs, path = self._locate(uri)
        try:
            exists = fs.exists(path) and fs.size(path) == len(data)
        except OSError as error:
            raise self._unwritable(error) from error
        if exists:
            self.touch(uri)
        else:
            self.write(uri, data)
        return StoredGrid(uri, sha256)

    def get(self, uri: str, sha256: str) -> tuple[NDArray[np.floating[Any]], NDArray[np.float64]]:
        """Read a grid and verify its checksum.

        Returns
        -------
        values, lattice
            The arguments of :meth:`put`: (n1, n2, n3) [e/Å^3] and (3, 3) [Å].

        Raises
        ------
        ArtifactError
            If the file is missing or does not match ``sha256``.
        """
        fs, path = self._locate(uri)
        try:
            data: bytes = fs.cat_file(path)
        except FileNotFoundError:
            raise ArtifactError(
                f"density grid {uri} is not in {self.url}; set ECDREG_CACHE to the store with this grid, or restore it"
                " from a copy"
            ) from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ArtifactError(
                f"density grid {uri} in {self.url} does not match its checksum; delete it and restore it from a copy"
            )
        return _from_hdf5(data)

    def holds(self, stored: StoredGrid) -> bool:
        """Whether the file of a grid exists; only :meth:`get` verifies its checksum."""
        fs, path = self._locate(stored.uri)
        return bool(fs.exists(path))

    @property
    def folder(self) -> Path | None:
        """Folder of a store on this machine, which may not exist yet; None for other stores."""
        from fsspec.implementations.local import LocalFileSystem

        fs, root = self._locate("")
        return Path(root) if isinstance(fs, LocalFileSystem) else None

    def read(self, name: str) -> bytes | None:
        """Bytes of a file; None if there is no such file.

        Parameters
        ----------
        name
            Path inside the store.
        """
        fs, path = self._locate(name)
        try:
            data: bytes = fs.cat_file(path)
        except FileNotFoundError:
            return None
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically; an existing file is replaced.

        Parameters
        ----------
        name
            Path inside the store.
        data
            Content of the file.

        Raises
        ------
        ConfigurationError
            If the store is not writable.
        """
        fs, path = self._locate(name)
        # Written under a temporary name, because readers trust a file with the final name to be complete.
        part = f"{path}.{uuid.uuid4().hex}.part"
        try:
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            fs.pipe_file(part, data)
            fs.mv(part, path)
        except OSError as error:
            with contextlib.suppress(OSError):  # the first error is reported
                fs.rm_file(part)
            raise self._unwritable(error) from error

    def touch(self, name: str) -> None:
        """Set the time of the last use of a file; only a file system of this machine stores it."""
        if self.folder is not None:
            fs, path = self._locate(name)
            # A cache of another user may be read-only. Its owner removes old files.
            with contextlib.suppress(OSError):
                fs.touch(path, truncate=False)

    def remove(self, name: str) -> None:
        """Remove a file, if it exists.

        Raises
        ------
        ConfigurationError
            If the store is not writable.
        """
        fs, path = self._locate(name)
        try:
            fs.rm_file(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unwritable(error) from error

    def files(self, under: str = "") -> list[StoredFile]:
        """All files of the store, sorted by name.

        Parameters
        ----------
        under
            Folder inside the store; empty: all files.
        """
        fs, path = self._locate(under)
        _, root = self._locate("")
        fs.invalidate_cache()  # other processes write here, too
        found: dict[str, dict[str, Any]] = fs.find(path.rstrip("/"), detail=True)
        return [
            StoredFile(name.removeprefix(root), int(about.get("size") or 0), _changed(about))
            for name, about in sorted(found.items())
        ]

    def _unwritable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"cannot write density grids to {self.url} ({error.strerror or error}); set ECDREG_CACHE to a writable"
            " place"
        )

    def _locate(self, uri: str) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        try:
            fs, root = url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(
                f"grid store {self.url!r} cannot be opened: {error}; check ECDREG_CACHE"
            ) from error
        return fs, f"{root.rstrip('/')}/{uri}"


def _changed(about: dict[str, Any]) -> datetime | None:
    # The name of the field depends on the file system: local, S3, others.
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = about.get(name)
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                continue
        if isinstance(value, datetime):
            return value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    return None


def _to_hdf5(values: NDArray[np.floating[Any]], lattice: NDArray[np.float64]) -> bytes:
    import h5py

    if values.ndim != 3 or values.dtype not in (np.float32, np.float64) or np.shape(lattice) != (3, 3):
        raise InputError(
            f"a grid of shape {values.shape} and type {values.dtype} with a lattice of shape {np.shape(lattice)} cannot"
            " be stored; give (n1, n2, n3) of float32 or float64 and (3, 3)"
        )
    buffer = io.BytesIO()
    # Without times and with a fixed layout, so that equal grids have equal bytes.
    with h5py.File(buffer, "w", libver=("earliest", "v110")) as file:
        grid = file.create_dataset(
            "values", data=np.ascontiguousarray(values), compression="gzip", compression_opts=4, shuffle=True
        )
        grid.attrs["unit"] = "e/Å^3"
        rows = file.create_dataset("lattice", data=np.asarray(lattice, dtype=np.float64))
        rows.attrs["unit"] = "Å"
    return buffer.getvalue()


def _from_hdf5(data: bytes) -> tuple[NDArray[np.floating[Any]], NDArray[np.float64]]:
    import h5py

    with h5py.File(io.BytesIO(data), "r") as file:
        return file["values"][()], file["lattice"][()]
