"""The bundled sample: 200 cubic crystals with first-principles densities.

``ingest/sample/README.md`` describes their origin, selection and licence.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ingest.sources.folder import FolderSource
from registry.errors import SourceError

__all__ = ["RELEASE", "sample_source"]

RELEASE = "1"
"""Version of the selection of crystals; increased when ``ingest/sample`` changes."""


def sample_source() -> FolderSource:
    """Open the bundled sample.

    Raises
    ------
    SourceError
        If the sample is not installed with the code.
    """
    folder = files("ingest") / "sample"
    if not isinstance(folder, Path) or not folder.is_dir():
        raise SourceError(f"the bundled sample is not at {folder}; install ecdreg from its wheel or its checkout")
    return FolderSource(folder, name="sample", release=RELEASE)
