"""Cache of downloaded objects: the grids of each object, so that no registry downloads it again.

The cache is part of the grid store, so that all registries with the same ``ECDREG_CACHE`` share it. The entry
``objects/<sha256 of bucket and key>.json`` contains the ETag, checksum and size of an object, its structure, and the
grid of each density kind at the native resolution. The level of theory is not part of an object, but of its source.
An entry contains its own checksum, and a grid is verified when it is read. A damaged entry or grid is treated as
missing, is removed, and is written again after the next download.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.checksums import json_sha256
from registry.errors import ArtifactError
from registry.files.grids import GridStore, StoredGrid

__all__ = ["OBJECTS", "CachedObject", "ObjectCache"]

OBJECTS = "objects/"
"""Folder of the entries in the grid store."""

_FORMAT = 1

Grids = dict[str, tuple[NDArray[np.floating[Any]], NDArray[np.float64]]]


@dataclass(frozen=True, eq=False)
class CachedObject:
    """A downloaded object and its content."""

    bucket: str
    key: str
    etag: str | None
    sha256: str
    """Checksum of the downloaded object (hex)."""
    bytes: int
    structure: dict[str, Any]
    """pymatgen ``Structure.as_dict()``, in the cell of the grids [Å]."""
    grids: Mapping[str, StoredGrid]
    """Grids by density kind."""


class ObjectCache:
    """Entries of downloaded objects in a grid store; it can be pickled.

    Parameters
    ----------
    grids
        The store of the entries and their grids.
    """

    def __init__(self, grids: GridStore) -> None:
        self.grids = grids

    @staticmethod
    def name(bucket: str, key: str) -> str:
        """Path of the entry of an object inside the store."""
        return f"{OBJECTS}{hashlib.sha256(f'{bucket}/{key}'.encode()).hexdigest()}.json"

    def names(self) -> frozenset[str]:
        """Paths of all entries, also of damaged ones, in one listing."""
        return frozenset(file.name for file in self.grids.files(OBJECTS) if file.name.endswith(".json"))

    def find(self, bucket: str, key: str) -> CachedObject | None:
        """The entry of an object; None if it is missing or damaged."""
        found = self.entry(self.name(bucket, key))
        return found if found is not None and (found.bucket, found.key) == (bucket, key) else None

    def entry(self, name: str) -> CachedObject | None:
        """The entry with a path; None if it is missing or damaged.

        Parameters
        ----------
        name
            Result of :meth:`name`.
        """
        data = self.grids.read(name)
        if data is None:
            return None
        try:
            content = json.loads(data)
            if content.pop("checksum") != json_sha256(content) or content.pop("format") != _FORMAT:
                return None
            grids = {kind: StoredGrid(**stored) for kind, stored in content.pop("grids").items()}
            return CachedObject(**content, grids=grids)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def load(self, found: CachedObject) -> Grids | None:
        """Grids of an object with their lattices; None if one of them is missing or damaged.

        In that case the entry and the damaged grid are removed, so that the next download writes them again.

        Parameters
        ----------
        found
            Result of :meth:`find`.

        Raises
        ------
        ConfigurationError
            If a damaged file cannot be removed.
        """
        loaded: Grids = {}
        for kind, stored in found.grids.items():
            try:
                loaded[kind] = self.grids.get(stored.uri, stored.sha256)
            except ArtifactError:
                self.grids.remove(self.name(found.bucket, found.key))
                self.grids.remove(stored.uri)
                return None
        # The time of the last use protects the files from removal, also if another user wrote them.
        for name in (self.name(found.bucket, found.key), *(stored.uri for stored in found.grids.values())):
            self.grids.touch(name)
        return loaded

    def add(self, found: CachedObject) -> None:
        """Write the entry of an object after its grids; an earlier version of the object is replaced.

        Raises
        ------
        ConfigurationError
            If the store is not writable.
        """
        content = {"format": _FORMAT, **asdict(found)}
        content["checksum"] = json_sha256(content)
        self.grids.write(self.name(found.bucket, found.key), json.dumps(content, indent=1).encode())
