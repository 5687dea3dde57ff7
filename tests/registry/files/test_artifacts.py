"""Tests of the artifact store."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from registry.errors import ArtifactError
from registry.files.artifacts import ArtifactStore


def test_artifact_is_named_by_its_checksum(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    stored = store.put(b"weights")
    assert stored.sha256 == hashlib.sha256(b"weights").hexdigest()
    assert store.put(b"weights") == stored
    assert store.put(b"other", suffix=".npz").uri.endswith(".npz")
    assert store.read(stored.uri, stored.sha256) == b"weights"
    files = [path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file()]
    assert stored.uri in files
    assert len(files) == 2, "no partial file is left"


def test_damaged_or_missing_artifact_is_refused(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    stored = store.put(b"weights")
    (tmp_path / stored.uri).write_bytes(b"weightz")
    with pytest.raises(ArtifactError, match="do not match their checksum"):
        store.read(stored.uri, stored.sha256)
    assert store.put(b"weights") == stored
    assert store.read(stored.uri, stored.sha256) == b"weights", "another put() repairs it"
    (tmp_path / stored.uri).unlink()
    with pytest.raises(ArtifactError, match="No such file"):
        store.read(stored.uri, stored.sha256)


def test_folder_that_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot write weights"):
        ArtifactStore(tmp_path / "file").put(b"weights")
