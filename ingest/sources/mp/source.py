"""The Materials Project as a source: which materials, in as few requests as there can be."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingest.slices.space_groups import F_CENTRED_CUBIC
from ingest.sources.base import SOURCES, Download, SourceRecord
from ingest.sources.mp.lock import Lock
from ingest.sources.mp.rate_limiter import RateLimiter
from registry.errors import ConfigurationError, SourceError
from registry.files.grids import GridStore
from registry.files.object_cache import ObjectCache
from registry.settings import Settings

if TYPE_CHECKING:
    from ingest.sources.mp.records import MpRecord

__all__ = ["NAME", "MpSelection", "MpSource", "mp_source", "read_ids"]

NAME = "mp"
"""Name of the source in the registry."""

AVERAGE_OBJECT = 18_600_000
"""Bytes of a density object on average, as the project says: 15 GB for the 781 stable F-centred cubic materials."""

Document = dict[str, Any]


@dataclass(frozen=True)
class MpSelection:
    """Which materials, and what of them.

    Raises
    ------
    ConfigurationError
        If nothing limits the selection, or ids are given along with something that would.
    """

    fcc: bool = False
    """F-centred cubic ones."""
    spacegroups: tuple[int, ...] = ()
    """Those of these space groups."""
    elements: tuple[str, ...] = ()
    """Those that contain all of these elements."""
    ids: tuple[str, ...] | None = None
    """Exactly these, whatever they are."""
    unstable: bool = False
    """Those above the convex hull too."""
    densities: bool = True
    """Their charge densities too."""
    texts: bool = True
    """The project's descriptions too."""
    limit: int | None = None
    """The first so many, by number."""

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
                    "--ids says which materials; leave out --spacegroup, --elements and --unstable"
                )
        elif not (self.fcc or self.spacegroups or self.elements):
            raise ConfigurationError(
                "that would be the whole Materials Project; say which: --fcc, --spacegroup, --elements or --ids"
            )

    @property
    def wanted_spacegroups(self) -> frozenset[int] | None:
        """Numbers of the space groups that are kept; None: all."""
        if self.spacegroups:
            return frozenset(self.spacegroups)
        return F_CENTRED_CUBIC if self.fcc else None

    def series(self) -> list[dict[str, Any]]:
        """Query parameters of each series of requests; one for all F-centred cubic space groups."""
        shared: dict[str, Any] = {"deprecated": False}
        if not self.unstable:
            shared["is_stable"] = True
        if self.elements:
            shared["elements"] = list(self.elements)
        if self.spacegroups:
            return [shared | {"spacegroup_number": number} for number in sorted(set(self.spacegroups))]
        return [shared | {"crystal_system": "Cubic"} if self.fcc else shared]


class MpSource:
    """Materials of the Materials Project; see :class:`~ingest.sources.base.CrystalSource`.

    Nothing is asked before :meth:`records` or :attr:`release`.

    Parameters
    ----------
    selection
        Which materials.
    key
        The user's key, 32 characters; by default the environment's ``MP_API_KEY``.
    folder
        Where answers and lock files of the rate limit are kept.
    manners
        Rates and patience.
    endpoint, object_endpoint
        URLs of the API and of the open data store, if not the usual ones.
    cache
        Where density objects are looked for first, and kept; None: nowhere.
    refresh
        Ask the store whether cached objects are still its own.
    lock
        Exactly which materials and densities; the selection's filters are not asked then.
    say
        Told what is being asked for.

    Raises
    ------
    ConfigurationError
        If there is no key, or what is given cannot be one.
    """

    name = NAME

    def __init__(
        self,
        selection: MpSelection,
        *,
        folder: Path,
        key: str | None = None,
        manners: RateLimiter | None = None,
        endpoint: str | None = None,
        object_endpoint: str | None = None,
        cache: ObjectCache | None = None,
        refresh: bool = False,
        lock: Lock | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        from ingest.sources.mp.client import DEFAULT_ENDPOINT, ApiKey, MpClient
        from ingest.sources.mp.objects import ObjectStore

        manners = manners or RateLimiter(folder)
        self._selection = selection
        self._folder = folder
        self._lock = lock
        self._cache = cache
        self._refresh = refresh
        self._say = say or (lambda _line: None)
        self._client = MpClient(
            ApiKey(os.environ.get("MP_API_KEY") if key is None else key),
            manners,
            endpoint=endpoint or os.environ.get("MP_API_ENDPOINT") or DEFAULT_ENDPOINT,
        )
        self._store = ObjectStore(
            manners,
            object_endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None,
        )
        self._remarks: list[str] = []

    @property
    def release(self) -> str | None:
        """Version of the project's database.

        Raises
        ------
        SourceError
            If the service does not answer.
        """
        return self._client.database_version

    @property
    def remarks(self) -> tuple[str, ...]:
        """Lines that the user should read once."""
        return tuple(self._remarks)

    @property
    def lock(self) -> Lock | None:
        """The lock that is kept to."""
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

    def foresee(self, records: Sequence[SourceRecord]) -> Download:
        """See :meth:`ingest.sources.base.Downloading.foresee`."""
        from ingest.sources.mp.records import MpRecord

        wanted = [one for one in records if isinstance(one, MpRecord) and one.density is not None]
        cached = sum(map(self.is_cached, wanted))
        objects = len(wanted) - cached
        return Download(objects, cached, objects * AVERAGE_OBJECT)

    def is_cached(self, record: MpRecord) -> bool:
        """Whether the record's density object is in the cache, as far as its entry's name tells."""
        from ingest.sources.mp.objects import BUCKET, object_key

        if record.density is None or not self._cached:
            return False
        return any(ObjectCache.name(BUCKET, object_key(task)) in self._cached for task, _ in record.density.candidates)

    @cached_property
    def _cached(self) -> frozenset[str]:
        # One listing instead of a question for each: a cache may be far away.
        return frozenset() if self._cache is None else self._cache.names()

    @cached_property
    def _records(self) -> list[SourceRecord]:
        from ingest.sources.mp.calculations import Answers, answers_of
        from ingest.sources.mp.records import MpRecord, record_of

        release = self.release
        self._say(f"asking the Materials Project ({release}) for its materials")
        documents, unknown = self._documents()
        chosen = sorted(documents, key=_by_number)[: self._selection.limit]
        updated = {ident: str(documents[ident].get("last_updated")) for ident in chosen}
        self._say(f"{len(chosen)} materials; asking for their calculations")
        answers = answers_of(
            self._client,
            Answers.at(self._folder, self._client),
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
        records: list[SourceRecord] = [
            record_of(
                NAME,
                documents.pop(ident),
                answers.calculations(ident),
                release=release,
                description=answers.description(ident) if self._selection.texts else None,
                store=self._store if self._selection.densities else None,
                cache=self._cache,
                refresh=self._refresh,
                pin=locked.get(ident),
            )
            for ident in chosen
        ]
        fault = f"the Materials Project ({release}) has no material of this id; it may be deprecated, or mistyped"
        records += [MpRecord(NAME, ident, fault=fault) for ident in unknown]
        return records

    def _documents(self) -> tuple[dict[str, Document], list[str]]:
        """Summary documents by id, and ids that there is none of."""
        from ingest.sources.mp.records import FIELDS

        selection = self._selection
        ids = tuple(self._lock.materials) if self._lock is not None else selection.ids
        if ids is not None:
            documents = self._client.summaries_by_id(ids, fields=FIELDS)
            return documents, [ident for ident in ids if ident not in documents]
        found: dict[str, Document] = {}
        wanted = selection.wanted_spacegroups
        for filters in selection.series():
            for document in self._client.summaries(filters, fields=FIELDS):
                if wanted is None or _space_group(document) in wanted:
                    found[str(document["material_id"])] = document
        if not found:
            raise SourceError("the Materials Project has no material of that selection")
        return found, []


@SOURCES.register(NAME)
def mp_source() -> MpSource:
    """The stable F-centred cubic materials, with the key and the folders of the environment.

    Raises
    ------
    ConfigurationError
        If there is no key in ``MP_API_KEY``.
    """
    chosen = Settings.from_environ()
    cache = ObjectCache(GridStore(chosen.grids_url))
    return MpSource(MpSelection(fcc=True), folder=chosen.home / NAME, cache=cache)


def read_ids(path: Path) -> tuple[str, ...]:
    """Material ids of a file: any number a line, apart by spaces or commas; ``#`` begins a remark.

    Returns
    -------
    tuple
        Each once, in the project's spelling and in the order of the file.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, has no id, or something else in it.
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
                    raise ValueError("an id reads mp-149")
                ids[AlphaID(rest, prefix=prefix).string if prefix == "mp" else f"mvc-{int(rest)}"] = None
            except ValueError as error:
                raise ConfigurationError(f"line {number} of {path}: {word!r} is no material id: {error}") from None
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
