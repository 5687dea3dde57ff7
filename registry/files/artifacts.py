"""The artifact store: files named by their checksum, weights above all."""

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
    """Where weights lie: their path inside the store, and their checksum."""

    uri: str
    sha256: str


class ArtifactStore:
    """Files named by their checksum in one folder; nothing in it is ever changed.

    Parameters
    ----------
    root
        The folder; made when something is first put into it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, data: bytes, suffix: str = ".safetensors") -> StoredArtifact:
        """Store a file; the same bytes again are the same file.

        Returns only when the file is safe on disk under its final name.

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
            with contextlib.suppress(OSError):  # the first error is the one to tell
                part.unlink()
            raise ArtifactError(
                f"cannot write weights to {path.parent}: {error.strerror or error}; make room there, or set ECDREG_HOME"
            ) from error
        return stored

    def read(self, uri: str, sha256: str) -> bytes:
        """The bytes of a file.

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
    # The new name is on disk only when its folder is.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
