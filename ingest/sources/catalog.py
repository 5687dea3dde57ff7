"""Catalog of the sources with a name, and the opening of a source by name or folder.

The built-in sources are added here. Other packages add theirs through the entry-point group
``ecdreg.sources``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ingest.sources.base import CrystalSource
from ingest.sources.folder import FolderSource
from ingest.sources.mp.source import NAME, mp_source
from ingest.sources.sample import sample_source
from registry.catalog import Catalog
from registry.errors import ConfigurationError, UnknownNameError

__all__ = ["SOURCES", "open_source"]

SOURCES: Catalog[Callable[[], CrystalSource]] = Catalog("sources")
"""Sources by name; a dataset folder is opened by its path instead."""

SOURCES.add(NAME, mp_source)
SOURCES.add("sample", sample_source)


def open_source(value: str, *, name: str | None = None) -> CrystalSource:
    """Open a source by its name or by the path of a dataset folder.

    Parameters
    ----------
    value
        A name in :data:`SOURCES`, or a path that contains a separator: a dataset folder.
    name
        Name of the folder's crystals in the registry; default: the name of the folder.

    Raises
    ------
    UnknownNameError
        If there is no source of that name.
    ConfigurationError
        If a name is given for a source that has one, or if a folder would take the name of another
        source.
    SourceError
        If there is no such folder, or its tables cannot be read.
    """
    separators = {os.sep, os.altsep or os.sep}
    if not any(separator in value for separator in separators):
        if name is not None:
            raise ConfigurationError(f"source {value!r} has its name; --name is for a folder, with a '/' in its path")
        if value not in SOURCES and Path(value).is_dir():
            raise UnknownNameError(f"no source {value!r}; for the folder of that name write '{value}{os.sep}'")
        return SOURCES[value]()
    source = FolderSource(Path(value), name=name)
    if source.name in SOURCES:
        raise ConfigurationError(f"a folder cannot have the name {source.name!r} of a source; give another --name")
    return source
