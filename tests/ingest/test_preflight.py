"""Check of the free disk space before a download."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from ingest.densities.slim import BYTES_PER_CRYSTAL
from ingest.pipeline import IngestOptions
from ingest.preflight import check_free_space, required_bytes
from ingest.sources.base import DownloadEstimate
from ingest.sources.mp.source import AVERAGE_OBJECT
from registry.errors import ConfigurationError
from registry.files.grids import GridStore
from registry.jobs.progress import Silent

HERE = IngestOptions(fcc=True, workers=0, recipes=("paper-total",))


class RecordedMessages(Silent):
    """Progress that records its messages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def message(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def local(tmp_path: Path) -> GridStore:
    return GridStore((tmp_path / "cache").as_uri())


def with_free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(2 * free, free, free))


def test_size_of_the_download_is_reported(monkeypatch: pytest.MonkeyPatch, local: GridStore) -> None:
    messages = RecordedMessages()
    with_free(monkeypatch, 40 * 10**9)
    check_free_space(DownloadEstimate(781, 3, 781 * AVERAGE_OBJECT), HERE, grids=local, progress=messages)
    assert len(messages.lines) == 1
    assert messages.lines[0].startswith("781 charge densities to download, about 14.5 GB, 3 more are in the cache")
    check_free_space(DownloadEstimate(0, 0, 0), HERE, grids=local, progress=messages)
    assert len(messages.lines) == 1
    slim = IngestOptions(slim=True)
    assert required_bytes(DownloadEstimate(781, 3, 781 * AVERAGE_OBJECT), slim) == 784 * BYTES_PER_CRYSTAL < 3e9


def test_download_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch, local: GridStore) -> None:
    with_free(monkeypatch, 10**9)
    download = DownloadEstimate(781, 0, 781 * AVERAGE_OBJECT)
    with pytest.raises(ConfigurationError, match=r"do not fit: about 36\.3 GB are needed and 1\.0 GB free .*--slim"):
        check_free_space(download, HERE, grids=local, progress=Silent())
    with pytest.raises(ConfigurationError, match="ECDREG_CACHE to a larger disk, or"):
        check_free_space(download, IngestOptions(slim=True), grids=local, progress=Silent())
    check_free_space(download, HERE, grids=GridStore("memory://roomy"), progress=Silent())  # not a disk of this machine
