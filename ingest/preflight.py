"""Before a long download: how much it will be, and whether it fits on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from ingest.densities.slim import BYTES_PER_CRYSTAL
from ingest.prepare import IngestOptions
from ingest.sources.base import Download
from registry.errors import ConfigurationError
from registry.files.grids import GridStore
from registry.jobs.progress import Progress

__all__ = ["check_room", "free_bytes", "room_needed"]

STORED_PER_DOWNLOADED = 2.5
"""Bytes in the grid store per byte downloaded: a total density and the deformation density made of it, in float64.

Measured on first-principles densities of four crystals on 72 x 72 x 72 points, with the eleven
digits of a CHGCAR in the object: 2.1 to 2.6. Of a spin-polarised crystal it is less.
"""


def room_needed(download: Download, options: IngestOptions) -> int:
    """Bytes that the grids of a download will take, rather too many than too few."""
    if options.slim:
        return (download.objects + download.cached) * BYTES_PER_CRYSTAL
    return int(download.bytes * STORED_PER_DOWNLOADED)


def free_bytes(grids: GridStore) -> int | None:
    """Free bytes of the file system that the store lies on; None where it is not one of this machine."""
    folder = grids.folder
    if folder is None:
        return None
    there: Path = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def check_room(download: Download, options: IngestOptions, *, grids: GridStore, progress: Progress) -> None:
    """Say how much will be downloaded, and refuse what cannot fit.

    Parameters
    ----------
    download
        What is to come.
    options
        Of the ingest.
    grids
        Where it is to go.
    progress
        Told how much it is.

    Raises
    ------
    ConfigurationError
        If the file system of the store has too little room.
    """
    if download.objects + download.cached == 0:
        return
    cached = f", {download.cached} more are in the cache" if download.cached else ""
    needed = room_needed(download, options)
    progress.message(
        f"{download.objects} charge densities to download, about {_gigabytes(download.bytes)}{cached}; "
        f"their grids will take about {_gigabytes(needed)} of {grids.url}"
    )
    free = free_bytes(grids)
    if free is not None and needed > free:
        advice = "set ECDREG_CACHE to a larger place" if options.slim else "give --slim, or set ECDREG_CACHE elsewhere"
        raise ConfigurationError(
            f"{download.objects} charge densities do not fit: about {_gigabytes(needed)} are needed and "
            f"{_gigabytes(free)} free in {grids.url}; {advice}, or take fewer with --limit"
        )


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
