"""The artifact store: files, mostly model weights, that are named by their checksum."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from registry.errors import ArtifactError

__all__ = ["ArtifactStore", "StoredArtifact"]


@dataclass(frozen=True)
class StoredArtifact:
    """Path of a file inside the store, and its checksum."""

    uri: str
    sha256: str


class ArtifactStore:
    """A folder of files that are named by their checksum and never changed.

    Parameters
    ----------
    root
        The folder. The first :meth:`put` creates it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, data: bytes, suffix: str = ".safetensors") -> StoredArtifact:
        """Store a file; equal bytes are one file.

        The file is on disk under its final name when this method returns.

        Raises
        ------
        ArtifactError
            If the folder cannot be written to.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        stored = StoredArtifact(f"{sha256[:2]}/{sha256}{suffix}", sha256)
        path = self.root / stored.uri
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            with contextlib.suppress(OSError):  # the first error is reported
                part.unlink()
            raise ArtifactError(
                f"cannot write weights to {path.parent}: {error.strerror or error}; make room there, or set ECDREG_HOME"
            ) from error
        return stored

    def read(self, uri: str, sha256: str) -> bytes:
        """Read a file and verify its checksum.

        Raises
        ------
        ArtifactError
            If it is missing, cannot be read, or does not match ``sha256``.
        """
        path = self.root / uri
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ArtifactError(
                f"cannot read weights {path}: {error.strerror or error}; restore the file, or train the model again"
            ) from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ArtifactError(
                f"weights {path} do not match their checksum; restore the file, or train the model again"
            )
        return data


def _sync_folder(folder: Path) -> None:
    # The new name is on disk only after its folder is.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
