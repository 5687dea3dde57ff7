"""Content of the grid store, its use by a registry, and removal of unused files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.files.grids import GridStore, StoredFile
from registry.files.object_cache import OBJECTS, ObjectCache
from registry.models import Density

__all__ = ["CacheStatus", "PrunePlan", "cache_status", "plan_prune", "prune"]


@dataclass(frozen=True)
class CacheStatus:
    """Content of a grid store."""

    url: str
    grids: int
    grid_bytes: int
    objects: int
    """Entries of downloaded objects with their grids."""
    object_bytes: int
    """Size of the entries; the objects themselves are not stored, only their grids."""
    referenced: int
    """Grids that the densities of this registry refer to."""
    referenced_bytes: int
    missing: int
    """Grids that the registry refers to, but that are not in the store."""


@dataclass(frozen=True)
class PrunePlan:
    """Files that may be removed."""

    grids: tuple[StoredFile, ...]
    objects: tuple[StoredFile, ...]
    """Entries of objects with grids that are removed or missing."""
    leftovers: tuple[StoredFile, ...]
    """Partial files of killed writers."""

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All files, entries before their grids."""
        return (*self.objects, *self.grids, *self.leftovers)

    @property
    def bytes(self) -> int:
        """Total size of the files [byte]."""
        return sum(file.bytes for file in self.files)


def cache_status(session: Session | None, grids: GridStore) -> CacheStatus:
    """Content of the store, and the part of it that any revision of this registry refers to.

    Parameters
    ----------
    session
        Session of the registry's database; None if there is no database.
    grids
        The store.
    """
    held, objects, _ = _files_by_kind(grids)
    referenced = _referenced(session)
    needed = [file for name, file in held.items() if name in referenced]
    return CacheStatus(
        url=grids.url,
        grids=len(held),
        grid_bytes=_bytes(held.values()),
        objects=len(objects),
        object_bytes=_bytes(objects.values()),
        referenced=len(needed),
        referenced_bytes=_bytes(needed),
        missing=len(referenced - set(held)),
    )


def plan_prune(session: Session, grids: GridStore, *, older_than: timedelta, now: datetime | None = None) -> PrunePlan:
    """Plan the removal of files that this registry does not refer to and that were not written or used recently.

    The grids of one object stay together: if the registry refers to one of them, all stay. Files of unknown age stay,
    too.

    Parameters
    ----------
    session
        Session of the registry's database.
    grids
        The store.
    older_than
        Minimum age. Younger files may be in use by another registry or a running ingest.
    now
        The current time, with a time zone; None: the time of the clock.
    """
    held, objects, leftovers = _files_by_kind(grids)
    limit = (datetime.now(UTC) if now is None else now) - older_than

    def is_old(file: StoredFile) -> bool:
        return file.changed is not None and file.changed <= limit

    needed = _referenced(session)
    cache = ObjectCache(grids)
    grids_of_entry: dict[str, set[str]] = {}
    for name in objects:
        entry = cache.entry(name)
        grids_of_entry[name] = set() if entry is None else {grid.uri for grid in entry.grids.values()}
    for together in grids_of_entry.values():
        if together & needed:
            needed |= together
    removed = {name: file for name, file in held.items() if name not in needed and is_old(file)}
    stays = set(held) - set(removed)
    return PrunePlan(
        grids=tuple(removed.values()),
        # An entry is useful only with all of its grids.
        objects=tuple(
            file
            for name, file in objects.items()
            if not (grids_of_entry[name] and grids_of_entry[name] <= stays) and is_old(file)
        ),
        leftovers=tuple(file for file in leftovers if is_old(file)),
    )


def prune(grids: GridStore, plan: PrunePlan) -> None:
    """Remove the files of a plan.

    Raises
    ------
    ConfigurationError
        If the store is not writable.
    """
    for file in plan.files:
        grids.remove(file.name)


def _files_by_kind(grids: GridStore) -> tuple[dict[str, StoredFile], dict[str, StoredFile], list[StoredFile]]:
    """Grids, entries of objects, and partial files of killed writers; other files are ignored."""
    held: dict[str, StoredFile] = {}
    objects: dict[str, StoredFile] = {}
    leftovers: list[StoredFile] = []
    for file in grids.files():
        if file.name.endswith(".part"):
            leftovers.append(file)
        elif file.name.startswith(OBJECTS) and file.name.endswith(".json"):
            objects[file.name] = file
        elif file.name.endswith(".h5"):
            held[file.name] = file
    return held, objects, leftovers


def _referenced(session: Session | None) -> set[str]:
    return set() if session is None else set(session.scalars(select(Density.uri).distinct()))


def _bytes(files: Iterable[StoredFile]) -> int:
    return sum(file.bytes for file in files)
