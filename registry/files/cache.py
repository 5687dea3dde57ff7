"""What lies in the grid store, what of it a registry needs, and what may go."""

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
    """What a grid store holds."""

    url: str
    grids: int
    grid_bytes: int
    objects: int
    """Downloaded objects whose grids are known."""
    object_bytes: int
    """Of the files that say so; the objects themselves are not kept, only their grids."""
    referenced: int
    """Grids that this registry's densities refer to."""
    referenced_bytes: int
    missing: int
    """Grids that it refers to and that are not in the store."""


@dataclass(frozen=True)
class PrunePlan:
    """Files that may be removed."""

    grids: tuple[StoredFile, ...]
    objects: tuple[StoredFile, ...]
    """Entries of objects whose grids go, or are gone."""
    leftovers: tuple[StoredFile, ...]
    """Of writers that were killed."""

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All of them, entries before the grids that they name."""
        return (*self.objects, *self.grids, *self.leftovers)

    @property
    def bytes(self) -> int:
        """Room that they take."""
        return sum(file.bytes for file in self.files)


def cache_status(session: Session | None, grids: GridStore) -> CacheStatus:
    """What the store holds and what of it this registry refers to, in any revision.

    Parameters
    ----------
    session
        On the registry's database; None: there is none yet.
    grids
        The store.
    """
    held, objects, _ = _sorted(grids)
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
    """What may go: neither referred to by this registry, nor written or used lately.

    The grids of one object stay together: where the registry refers to one of them, all stay. Files
    whose age the file system does not say stay too.

    Parameters
    ----------
    session
        On the registry's database.
    grids
        The store.
    older_than
        Younger files stay: another registry may use them, an ingest may be writing them.
    now
        The present, with a time zone; None: the clock's.
    """
    held, objects, leftovers = _sorted(grids)
    limit = (datetime.now(UTC) if now is None else now) - older_than

    def old(file: StoredFile) -> bool:
        return file.changed is not None and file.changed <= limit

    needed = _referenced(session)
    cache = ObjectCache(grids)
    named = {}
    for name in objects:
        entry = cache.entry(name)
        named[name] = set() if entry is None else {grid.uri for grid in entry.grids.values()}
    for together in named.values():
        if together & needed:
            needed |= together
    going = {name: file for name, file in held.items() if name not in needed and old(file)}
    stays = set(held) - set(going)
    return PrunePlan(
        grids=tuple(going.values()),
        # An entry without all of its grids is of no use.
        objects=tuple(
            file for name, file in objects.items() if not (named[name] and named[name] <= stays) and old(file)
        ),
        leftovers=tuple(file for file in leftovers if old(file)),
    )


def prune(grids: GridStore, plan: PrunePlan) -> None:
    """Remove what a plan says.

    Raises
    ------
    ConfigurationError
        If the store cannot be written to.
    """
    for file in plan.files:
        grids.remove(file.name)


def _sorted(grids: GridStore) -> tuple[dict[str, StoredFile], dict[str, StoredFile], list[StoredFile]]:
    """Grids, entries of objects, and what a killed writer left; foreign files are none of them."""
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
