"""The grid store: density grids in content-addressed HDF5 files, outside the database.

A grid lies at ``<sha256[:2]>/<sha256>.h5`` under the store's root, which is any fsspec URL. The
name is the checksum of the file, so a grid is written once, and one that was damaged is noticed.
"""

from __future__ import annotations

import hashlib
import io
import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.errors import ArtifactError, ConfigurationError, InputError

__all__ = ["GridStore", "StoredGrid"]


@dataclass(frozen=True)
class StoredGrid:
    """Where a grid lies: its path inside the store, and the checksum of the file."""

    uri: str
    sha256: str


class GridStore:
    """A content-addressed store of periodic grids.

    Parameters
    ----------
    url
        fsspec URL of the root: ``file:///...``, ``memory://...``, ``s3://...``.

    Notes
    -----
    Holds nothing but the URL until it is used, so that it can be sent to a worker process.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def put(self, values: NDArray[np.floating[Any]], lattice: NDArray[np.float64]) -> StoredGrid:
        """Store a grid; the same grid again is the same file.

        Parameters
        ----------
        values
            Shape (n1, n2, n3), in e/Å^3. float32 and float64 stay what they are.
        lattice
            Shape (3, 3), lattice vectors as rows [Å].

        Raises
        ------
        InputError
            If the shapes or the number type are others.
        ConfigurationError
            If the store cannot be written to.
        """
        data = _to_hdf5(values, lattice)
        sha256 = hashlib.sha256(data).hexdigest()
        uri = f"{sha256[:2]}/{sha256}.h5"
        fs, path = self._locate(uri)
        try:
            if fs.exists(path) and fs.size(path) == len(data):
                return StoredGrid(uri, sha256)
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            # Never a half-written file under the final name: a reader trusts what it finds there.
            part = f"{path}.{uuid.uuid4().hex}.part"
            fs.pipe_file(part, data)
            fs.mv(part, path)
        except OSError as error:
            raise ConfigurationError(
                f"cannot write density grids to {self.url} ({error.strerror or error}); set ECDREG_CACHE to a place"
                " that can be written to"
            ) from error
        return StoredGrid(uri, sha256)

    def get(self, uri: str, sha256: str) -> tuple[NDArray[np.floating[Any]], NDArray[np.float64]]:
        """Read a grid and check it.

        Returns
        -------
        values, lattice
            As they were given to :meth:`put`: (n1, n2, n3) [e/Å^3] and (3, 3) [Å].

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
                f"density grid {uri} is not in {self.url}; ingest its crystal again, or point ECDREG_CACHE to the store"
            ) from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ArtifactError(
                f"density grid {uri} in {self.url} does not match its checksum; delete it and ingest its crystal again"
            )
        return _from_hdf5(data)

    def _locate(self, uri: str) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        try:
            fs, root = url_to_fs(self.url)
        except (ValueError, ImportError) as error:
            raise ConfigurationError(
                f"grid store {self.url!r} cannot be opened: {error}; check ECDREG_CACHE"
            ) from error
        return fs, f"{root.rstrip('/')}/{uri}"


def _to_hdf5(values: NDArray[np.floating[Any]], lattice: NDArray[np.float64]) -> bytes:
    import h5py

    if values.ndim != 3 or values.dtype not in (np.float32, np.float64) or np.shape(lattice) != (3, 3):
        raise InputError(
            f"a grid of shape {values.shape} and type {values.dtype} with a lattice of shape {np.shape(lattice)} cannot"
            " be stored; give (n1, n2, n3) of float32 or float64 and (3, 3)"
        )
    buffer = io.BytesIO()
    # No times, a fixed layout: equal grids must give equal bytes.
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
