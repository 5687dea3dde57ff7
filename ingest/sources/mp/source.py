"""Source ``mp``: selection of Materials Project materials and their records, in few requests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.slices.space_groups import F_CENTRED_CUBIC
from ingest.sources.base import DownloadEstimate, SourceRecord
from ingest.sources.mp.lock_file import LockFile
from ingest.sources.mp.rate_limiter import RateLimiter
from registry.errors import ConfigurationError, SourceError
from registry.files.grids import GridStore
from registry.files.object_cache import ObjectCache
from registry.settings import Settings

if TYPE_CHECKING:
    from ingest.sources.mp.records import MpRecord

__all__ = ["NAME", "MpAccess", "MpSelection", "MpSource", "mp_source", "read_ids"]

NAME = "mp"
"""Name of the source in the registry."""

AVERAGE_OBJECT = 18_600_000
"""Mean size of a density object [bytes], from the published 15 GB of the 781 stable F-centred cubic materials."""

Document = dict[str, Any]


@dataclass(frozen=True)
class MpSelection:
    """Selection of materials and of their data.

    Raises
    ------
    ConfigurationError
        If nothing limits the selection, or both ids and filters are given.
    """

    fcc: bool = False
    """Only F-centred cubic materials."""
    spacegroups: tuple[int, ...] = ()
    """Only materials of these space groups."""
    elements: tuple[str, ...] = ()
    """Only materials that contain all of these elements."""
    ids: tuple[str, ...] | None = None
    """Exactly these materials."""
    unstable: bool = False
    """Also materials above the convex hull."""
    densities: bool = True
    """Whether charge densities are downloaded."""
    texts: bool = True
    """Whether the descriptions of the Materials Project are requested."""
    limit: int | None = None
    """Maximum number of materials, in the order of their numbers."""

    def __post_init__(self) -> None:
        for number in self.spacegroups:
            if not 1 <= number <= 230:
                raise ConfigurationError(f"there is no space group {number}; give 1 to 230")
        if self.fcc and (others := set(self.spacegroups) - F_CENTRED_CUBIC):
            raise ConfigurationError(
                f"space group {min(others)} is not F-centred cubic; leave out --fcc, or one of the two"
            )
        if self.ids is not None:
            if self.spacegroups or self.elements or self.unstable:
                raise ConfigurationError(
                    "--ids selects the materials; leave out --spacegroup, --elements and --unstable"
                )
        elif not (self.fcc or self.spacegroups or self.elements):
            raise ConfigurationError(
                "that would be the whole Materials Project; select with --fcc, --spacegroup, --elements or --ids"
            )

    @property
    def selected_spacegroups(self) -> frozenset[int] | None:
        """Numbers of the selected space groups; None: all."""
        if self.spacegroups:
            return frozenset(self.spacegroups)
        return F_CENTRED_CUBIC if self.fcc else None

    def series(self) -> list[dict[str, Any]]:
        """Query parameters of each series of requests; F-centred cubic space groups need only one series."""
        shared: dict[str, Any] = {"deprecated": False}
        if not self.unstable:
            shared["is_stable"] = True
        if self.elements:
            shared["elements"] = list(self.elements)
        if self.spacegroups:
            return [shared | {"spacegroup_number": number} for number in sorted(set(self.spacegroups))]
        return [shared | {"crystal_system": "Cubic"} if self.fcc else shared]


@dataclass(frozen=True)
class MpAccess:
    """Access to the Materials Project; None: that of the environment."""

    key: str | None = field(default=None, repr=False)
    """The user's key, 32 characters; None: ``MP_API_KEY``."""
    limiter: RateLimiter | None = None
    """Rates, retries and timeouts; None: the default ones."""
    endpoint: str | None = None
    """URL of the API."""
    object_endpoint: str | None = None
    """URL of the open data store."""


class MpSource:
    """Materials of the Materials Project; see :class:`~ingest.sources.base.CrystalSource`.

    No request is sent before :meth:`records` or :attr:`release`.

    Parameters
    ----------
    selection
        Selected materials.
    folder
        Folder of cached responses and of the lock files of the rate limiter.
    access
        Key, rates and URLs; default: those of the environment.
    cache
        Cache of density objects; None: no cache.
    refresh
        Compare cached objects with the store's ETags.
    lock
        Materials and densities of a lock file; the filters of the selection are not used then.
    notify
        Receives a line about each group of requests.

    Raises
    ------
    ConfigurationError
        If there is no key, or it cannot be a key.
    """

    name = NAME

    def __init__(
        self,
        selection: MpSelection,
        *,
        folder: Path,
        access: MpAccess | None = None,
        cache: ObjectCache | None = None,
        refresh: bool = False,
        lock: LockFile | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        from ingest.sources.mp.client import DEFAULT_ENDPOINT, ApiKey, MpClient
        from ingest.sources.mp.objects import ObjectStore

        access = access or MpAccess()
        limiter = access.limiter or RateLimiter(folder)
        self._selection = selection
        self._folder = folder
        self._lock = lock
        self._cache = cache
        self._refresh = refresh
        self._notify = notify or (lambda _line: None)
        self._client = MpClient(
            ApiKey(os.environ.get("MP_API_KEY") if access.key is None else access.key),
            limiter,
            endpoint=access.endpoint or os.environ.get("MP_API_ENDPOINT") or DEFAULT_ENDPOINT,
        )
        self._store = ObjectStore(
            limiter,
            access.object_endpoint
            or os.environ.get("AWS_ENDPOINT_URL_S3")
            or os.environ.get("AWS_ENDPOINT_URL")
            or None,
        )
        self._remarks: list[str] = []

    @property
    def release(self) -> str | None:
        """Version of the Materials Project's database.

        Raises
        ------
        SourceError
            If the service does not answer.
        """
        return self._client.database_version

    @property
    def remarks(self) -> tuple[str, ...]:
        """Lines for the user."""
        return tuple(self._remarks)

    @property
    def lock(self) -> LockFile | None:
        """Content of the lock file; None: no lock file."""
        return self._lock

    def __len__(self) -> int:
        return len(self._records)

    def records(self) -> Iterator[SourceRecord]:
        """All materials, by number.

        Raises
        ------
        SourceError
            If the service does not answer, refuses the key, or blocks this machine.
        """
        return iter(self._records)

    def estimate_download(self, records: Sequence[SourceRecord]) -> DownloadEstimate:
        """See :meth:`ingest.sources.base.DownloadingSource.estimate_download`."""
        from ingest.sources.mp.records import MpRecord

        wanted = [one for one in records if isinstance(one, MpRecord) and one.density is not None]
        cached = sum(map(self.is_cached, wanted))
        objects = len(wanted) - cached
        return DownloadEstimate(objects, cached, objects * AVERAGE_OBJECT)

    def is_cached(self, record: MpRecord) -> bool:
        """Whether an entry with the name of the record's density object is in the cache."""
        from ingest.sources.mp.objects import BUCKET, object_key

        if record.density is None or not self._cached:
            return False
        return any(ObjectCache.name(BUCKET, object_key(task)) in self._cached for task, _ in record.density.candidates)

    @cached_property
    def _cached(self) -> frozenset[str]:
        # One listing instead of one request per object: the cache may be on another machine.
        return frozenset() if self._cache is None else self._cache.names()

    @cached_property
    def _records(self) -> list[SourceRecord]:
        from ingest.sources.mp.calculations import ResponseCache, request_calculations
        from ingest.sources.mp.records import Downloads, MpRecord, make_record

        release = self.release
        self._notify(f"requesting the materials of the Materials Project ({release})")
        documents, unknown = self._documents()
        chosen = sorted(documents, key=_by_number)[: self._selection.limit]
        updated = {ident: str(documents[ident].get("last_updated")) for ident in chosen}
        self._notify(f"{len(chosen)} materials; requesting their calculations")
        responses = ResponseCache.open(self._folder, self._client)
        request_calculations(
            self._client,
            responses,
            updated,
            tasks=self._selection.densities and self._lock is None,
            texts=self._selection.texts,
        )
        locked = {} if self._lock is None else self._lock.materials
        if self._lock is not None and self._lock.release != release:
            self._remarks.append(
                f"the lock file is of release {self._lock.release}, the Materials Project is at {release}: "
                "densities are those of the lock, properties may have other values"
            )
        downloads = Downloads(self._store, self._cache, self._refresh) if self._selection.densities else None
        records: list[SourceRecord] = [
            make_record(
                NAME,
                documents.pop(ident),
                responses.calculations(ident),
                release=release,
                description=responses.description(ident) if self._selection.texts else None,
                downloads=downloads,
                locked=locked.get(ident),
            )
            for ident in chosen
        ]
        fault = f"the Materials Project ({release}) has no material of this id; it may be deprecated, or mistyped"
        records += [MpRecord(NAME, ident, fault=fault) for ident in unknown]
        return records

    def _documents(self) -> tuple[dict[str, Document], list[str]]:
        """Summary documents by id, and the ids without a document."""
        from ingest.sources.mp.records import FIELDS

        selection = self._selection
        ids = tuple(self._lock.materials) if self._lock is not None else selection.ids
        if ids is not None:
            documents = self._client.summaries_by_id(ids, fields=FIELDS)
            return documents, [ident for ident in ids if ident not in documents]
        found: dict[str, Document] = {}
        wanted = selection.selected_spacegroups
        for filters in selection.series():
            for document in self._client.summaries(filters, fields=FIELDS):
                if wanted is None or _space_group(document) in wanted:
                    found[str(document["material_id"])] = document
        if not found:
            raise SourceError("the Materials Project has no material of that selection")
        return found, []


def mp_source() -> MpSource:
    """Source of the stable F-centred cubic materials, with the key and the folders of the environment.

    Raises
    ------
    ConfigurationError
        If there is no key in ``MP_API_KEY``.
    """
    chosen = Settings.from_environ()
    cache = ObjectCache(GridStore(chosen.grids_url))
    return MpSource(MpSelection(fcc=True), folder=chosen.home / NAME, cache=cache)


def read_ids(path: Path) -> tuple[str, ...]:
    """Read material ids from a file, separated by spaces, commas or line breaks; ``#`` begins a comment.

    Returns
    -------
    tuple
        Each id once, in the spelling of the Materials Project and in the order of the file.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, has no id, or contains something that is not an id.
    """
    from emmet.core.mpid import AlphaID

    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the ids in {path} cannot be read: {error}") from error
    ids: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        for word in line.partition("#")[0].replace(",", " ").split():
            prefix, separator, rest = word.partition("-")
            try:
                if not separator or prefix not in ("mp", "mvc") or not rest:
                    raise ValueError("the form of an id is mp-149")
                ids[AlphaID(rest, prefix=prefix).string if prefix == "mp" else f"mvc-{int(rest)}"] = None
            except ValueError as error:
                raise ConfigurationError(f"line {number} of {path}: {word!r} is not a material id: {error}") from None
    if not ids:
        raise ConfigurationError(f"{path} has no material id")
    return tuple(ids)


def _space_group(document: Mapping[str, Any]) -> int | None:
    symmetry = document.get("symmetry")
    number = symmetry.get("number") if isinstance(symmetry, dict) else None
    return number if isinstance(number, int) else None


def _by_number(ident: str) -> tuple[int, str]:
    from ingest.sources.mp.calculations import number_of

    try:
        return number_of(ident), ident
    except ValueError:
        return 0, ident
