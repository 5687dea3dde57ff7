"""Check of the free disk space before a download."""

from __future__ import annotations

import shutil
from pathlib import Path

from ingest.densities.slim import BYTES_PER_CRYSTAL
from ingest.preparation.options import IngestOptions
from ingest.sources.base import DownloadEstimate
from registry.errors import ConfigurationError
from registry.files.grids import GridStore
from registry.jobs.progress import Progress

__all__ = ["check_free_space", "free_bytes", "required_bytes"]

STORED_PER_DOWNLOADED = 2.5
"""Bytes in the grid store per downloaded byte: a total density and its deformation density, in float64.

Measured on first-principles densities of four crystals on 72 x 72 x 72 points, with the eleven
digits of a CHGCAR in the object: 2.1 to 2.6; less for a spin-polarised crystal.
"""


def required_bytes(download: DownloadEstimate, options: IngestOptions) -> int:
    """Upper estimate of the size of the grids of a download [bytes]."""
    if options.slim:
        return (download.objects + download.cached) * BYTES_PER_CRYSTAL
    return int(download.bytes * STORED_PER_DOWNLOADED)


def free_bytes(grids: GridStore) -> int | None:
    """Free bytes of the store's file system; None for a store that is not on this machine."""
    folder = grids.folder
    if folder is None:
        return None
    existing: Path = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


def check_free_space(
    download: DownloadEstimate, options: IngestOptions, *, grids: GridStore, progress: Progress
) -> None:
    """Report the size of a download, and refuse one that does not fit on the disk.

    Parameters
    ----------
    download
        Estimate of the download.
    options
        Options of the ingest.
    grids
        Store of the density grids.
    progress
        Receives the size.

    Raises
    ------
    ConfigurationError
        If the file system of the store has too little free space.
    """
    if download.objects + download.cached == 0:
        return
    cached = f", {download.cached} more are in the cache" if download.cached else ""
    needed = required_bytes(download, options)
    progress.message(
        f"{download.objects} charge densities to download, about {_gigabytes(download.bytes)}{cached}; "
        f"their grids will take about {_gigabytes(needed)} in {grids.url}"
    )
    free = free_bytes(grids)
    if free is not None and needed > free:
        advice = "set ECDREG_CACHE to a larger disk" if options.slim else "give --slim, or set ECDREG_CACHE elsewhere"
        raise ConfigurationError(
            f"{download.objects} charge densities do not fit: about {_gigabytes(needed)} are needed and "
            f"{_gigabytes(free)} free in {grids.url}; {advice}, or take fewer with --limit"
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
