"""The bundled sample: 200 cubic crystals with first-principles densities.

Where they come from, how they were chosen and under which licence: ``ingest/sample/README.md``.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ingest.sources.base import SOURCES
from ingest.sources.folder import FolderSource
from registry.errors import SourceError

__all__ = ["RELEASE", "sample_source"]

RELEASE = "1"
"""Counts the selections of crystals; raised when ``ingest/sample`` changes."""


@SOURCES.register("sample")
def sample_source() -> FolderSource:
    """The bundled sample as a source.

    Raises
    ------
    SourceError
        If it was not installed along with the code.
    """
    folder = files("ingest") / "sample"
    if not isinstance(folder, Path) or not folder.is_dir():
        raise SourceError(f"the bundled sample is not at {folder}; install ecdreg from its wheel or its checkout")
    return FolderSource(folder, name="sample", release=RELEASE)
