"""Which grids came out of which downloaded object, so that another registry downloads nothing again.

Kept in the grid store itself, so that all registries with the same ``ECDREG_CACHE`` share it:
``objects/<sha256 of bucket and key>.json`` names the object (ETag, checksum, size), the structure
in it, and the grid of each density kind at its native resolution. Its level of theory is not part
of an object; the source says that. An entry holds its own checksum, and a grid is checked whenever
it is read: what is damaged counts as not there, is removed, and comes anew with the next download.
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
    """A downloaded object and what came out of it."""

    bucket: str
    key: str
    etag: str | None
    sha256: str
    """Of the object as it came (hex)."""
    bytes: int
    structure: dict[str, Any]
    """pymatgen ``Structure.as_dict()``: the cell of the grids [Å]."""
    grids: Mapping[str, StoredGrid]
    """By density kind."""


class ObjectCache:
    """The entries of a grid store. Picklable.

    Parameters
    ----------
    grids
        The store that has them and their grids.
    """

    def __init__(self, grids: GridStore) -> None:
        self.grids = grids

    @staticmethod
    def name(bucket: str, key: str) -> str:
        """Path of an object's entry inside the store."""
        return f"{OBJECTS}{hashlib.sha256(f'{bucket}/{key}'.encode()).hexdigest()}.json"

    def names(self) -> frozenset[str]:
        """Paths of all entries, whole or not, in one listing."""
        return frozenset(file.name for file in self.grids.files(OBJECTS) if file.name.endswith(".json"))

    def find(self, bucket: str, key: str) -> CachedObject | None:
        """The entry of an object; None where there is none that is whole."""
        found = self.entry(self.name(bucket, key))
        return found if found is not None and (found.bucket, found.key) == (bucket, key) else None

    def entry(self, name: str) -> CachedObject | None:
        """An entry by its path; None where there is none that is whole.

        Parameters
        ----------
        name
            As :meth:`name` makes it.
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
        """The grids of an object, each with its lattice; None where one is missing or damaged.

        What is damaged is removed then, so that it is written anew after the next download.

        Parameters
        ----------
        found
            From :meth:`find`.

        Raises
        ------
        ConfigurationError
            If something is damaged and cannot be removed.
        """
        loaded: Grids = {}
        for kind, stored in found.grids.items():
            try:
                loaded[kind] = self.grids.get(stored.uri, stored.sha256)
            except ArtifactError:
                self.grids.remove(self.name(found.bucket, found.key))
                self.grids.remove(stored.uri)
                return None
        # What is in use is not old, whoever wrote it.
        for name in (self.name(found.bucket, found.key), *(stored.uri for stored in found.grids.values())):
            self.grids.touch(name)
        return loaded

    def add(self, found: CachedObject) -> None:
        """Remember an object whose grids are in the store; it takes the place of an earlier version.

        Raises
        ------
        ConfigurationError
            If the store cannot be written to.
        """
        content = {"format": _FORMAT, **asdict(found)}
        content["checksum"] = json_sha256(content)
        self.grids.write(self.name(found.bucket, found.key), json.dumps(content, indent=1).encode())
