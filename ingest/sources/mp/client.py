"""Requests to the Materials Project through its own client, ``mp-api``, with checks and retries.

Every request goes through one :class:`requests.Session` with timeouts, retries that respect
``Retry-After``, and a rate limit that all processes of the machine share. Every failure becomes
a :class:`~registry.errors.SourceError` of one line that does not contain the key.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from ingest.sources.mp.rate_limiter import RateLimiter, RetryableError
from ingest.sources.mp.session import BLOCKED_MESSAGE, KEY_ADVICE, RateLimitedSession
from registry.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    from requests import Session

__all__ = ["DEFAULT_ENDPOINT", "ApiKey", "MpClient", "chunks"]

DEFAULT_ENDPOINT = "https://api.materialsproject.org/"

IDS_PER_REQUEST = 100
"""Number of ids in one URL; the service refuses longer URLs."""

_KEY_LENGTH = 32
T = TypeVar("T")
Document = dict[str, Any]


class ApiKey:
    """An API key that is hidden in every printed form.

    Parameters
    ----------
    value
        32 characters; None or blank: no key.

    Raises
    ------
    ConfigurationError
        If the value cannot be a key. The message does not contain it.
    """

    def __init__(self, value: str | None) -> None:
        value = (value or "").strip()
        if not value:
            raise ConfigurationError(f"the Materials Project requires a key; {KEY_ADVICE}")
        if len(value) != _KEY_LENGTH or not value.isalnum() or not value.isascii():
            raise ConfigurationError(
                f"MP_API_KEY has {len(value)} characters, a key has {_KEY_LENGTH} letters and digits; {KEY_ADVICE}"
            )
        self._value = value

    def reveal(self) -> str:
        """The key itself, for the header of a request only."""
        return self._value

    def redact(self, text: str) -> str:
        """Replace the key in a text."""
        return text.replace(self._value, "[key]")

    def __repr__(self) -> str:
        return "ApiKey([hidden])"

    def __reduce__(self) -> str:
        raise TypeError("an API key cannot be pickled: it stays in its process")


class MpClient:
    """The requests of this project to the Materials Project.

    Parameters
    ----------
    key
        The user's key.
    limiter
        Rates, retries and timeouts.
    endpoint
        URL of the API.
    page_size
        Documents per request of a series.
    """

    def __init__(
        self, key: ApiKey, limiter: RateLimiter, *, endpoint: str = DEFAULT_ENDPOINT, page_size: int = 1000
    ) -> None:
        self._key = key
        self._page_size = page_size
        self._limiter = limiter
        self.endpoint = endpoint if endpoint.endswith("/") else endpoint + "/"

    def __repr__(self) -> str:
        return f"MpClient({self.endpoint!r})"

    @cached_property
    def database_version(self) -> str:
        """Version of the Materials Project's database, such as ``2025.09.25``.

        Raises
        ------
        SourceError
            If the service does not answer, or blocks this machine.
        """
        heartbeat = self._request("heartbeat", self._heartbeat)
        version = heartbeat.get("db_version")
        if heartbeat.get("version") == "blocked":
            raise SourceError(BLOCKED_MESSAGE)
        if not isinstance(version, str) or not version:
            raise SourceError(f"{self.endpoint}heartbeat does not contain a database version; check MP_API_ENDPOINT")
        return version

    def summaries(self, filters: Mapping[str, Any], *, fields: Sequence[str]) -> list[Document]:
        """Summary documents of one query, complete and without duplicates.

        The client takes an empty page for the last one. Therefore the number of documents is
        compared with the count of the service, and an incomplete series is requested again.

        Parameters
        ----------
        filters
            Query parameters, at least one.
        fields
            Top-level fields of a document.

        Raises
        ------
        SourceError
            If the service refuses, or the series stays incomplete.
        """
        found: dict[str, Document] = {}
        count_filters = {name: ",".join(value) if isinstance(value, list) else value for name, value in filters.items()}

        def attempt() -> list[Document]:
            documents = self._request(
                "summaries",
                lambda: self._summary.search(**filters, fields=list(fields), chunk_size=self._page_size),
            )
            found.update(
                {str(document["material_id"]): document for document in documents if "material_id" in document}
            )
            expected = self._request("a count", lambda: self._summary.count(dict(count_filters)))
            if len(found) < expected:
                raise RetryableError(f"counts {expected} materials and sent {len(found)}")
            return list(found.values())

        try:
            return self._limiter.retry(attempt)
        except RetryableError as error:
            raise SourceError(
                f"the Materials Project {error}, {self._limiter.attempts} times; run the same command again later"
            ) from None

    def summaries_by_id(self, ids: Sequence[str], *, fields: Sequence[str]) -> dict[str, Document]:
        """Summary documents by material id; ids that do not exist are missing.

        Raises
        ------
        SourceError
            If the service refuses.
        """
        return self._by_id("summaries", ids, lambda some: self._summary.search(material_ids=some, fields=list(fields)))

    def materials(self, ids: Sequence[str], *, fields: Sequence[str]) -> dict[str, Document]:
        """Core documents, which list the calculations of a material, by material id.

        Raises
        ------
        SourceError
            If the service refuses.
        """
        return self._by_id("calculations", ids, lambda some: self._core.search(material_ids=some, fields=list(fields)))

    def descriptions(self, ids: Sequence[str]) -> dict[str, Document]:
        """Texts of robocrystallographer by material id, for the materials that have one.

        Raises
        ------
        SourceError
            If the service refuses.
        """
        fields = ["material_id", "description", "robocrys_version"]
        return self._by_id(
            "texts",
            ids,
            lambda some: self._core.robocrys.search_docs(material_ids=some, fields=fields),
            repeat_missing=False,
        )

    def tasks(self, ids: Sequence[str]) -> list[Document]:
        """``task_id`` and ``last_updated`` of calculations, for those that have a document.

        Raises
        ------
        SourceError
            If the service refuses.
        """
        fields = ["task_id", "last_updated"]
        found: list[Document] = []
        for some in chunks(ids):
            found += self._request("tasks", lambda some=some: self._core.tasks.search(task_ids=some, fields=fields))  # type: ignore[misc]
        return found

    def _by_id(
        self,
        what: str,
        ids: Sequence[str],
        search: Callable[[list[str]], list[Document]],
        *,
        repeat_missing: bool = True,
    ) -> dict[str, Document]:
        found: dict[str, Document] = {}
        missing = list(ids)
        # An empty page and an unknown id look alike: missing ids are requested once more.
        for _ in range(2 if repeat_missing else 1):
            for some in chunks(missing):
                documents = self._request(what, lambda some=some: search(some))  # type: ignore[misc]
                found |= {str(document["material_id"]): document for document in documents if "material_id" in document}
            missing = [ident for ident in ids if ident not in found]
            if not missing:
                break
        return found

    @property
    def _summary(self) -> Any:
        return self._core.summary

    @property
    def _core(self) -> Any:
        return self._rester.materials

    @cached_property
    def _rester(self) -> Any:
        assert self.database_version  # requested with retries, before the client requests it without
        return self._request("heartbeat", self._new_rester)

    def _new_rester(self) -> Any:
        with warnings.catch_warnings():
            # Deprecations in its dependencies, during the import.
            warnings.simplefilter("ignore")
            from mp_api.client import MPRester

            logging.getLogger("mp_api").setLevel(logging.ERROR)
            return MPRester(
                self._key.reveal(),
                endpoint=self.endpoint,
                use_document_model=False,
                session=self._session,
                mute_progress_bars=True,
            )

    @cached_property
    def _session(self) -> Session:
        return RateLimitedSession(self._key.reveal(), self._limiter)

    def _heartbeat(self) -> dict[str, Any]:
        response = self._session.get(f"{self.endpoint}heartbeat")
        heartbeat = response.json() if response.status_code == 200 else None
        if not isinstance(heartbeat, dict):
            raise SourceError(
                f"{self.endpoint}heartbeat answers {response.status_code}; see status.materialsproject.org"
            )
        return heartbeat

    def _request(self, what: str, request: Callable[[], T]) -> T:
        """Return the result of a request; convert any failure to a SourceError of one line."""
        from requests import RequestException

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the client's warnings about query parameters
                return request()
        except SourceError:
            raise
        except (RequestException, OSError) as error:
            raise SourceError(self._line(what, f"{type(error).__name__}: {error}")) from None
        except Exception as error:  # noqa: BLE001  the client raises JSONDecodeError, KeyError, its own, and others
            raise SourceError(self._line(what, f"{type(error).__name__}: {error}")) from None

    def _line(self, what: str, reason: str) -> str:
        reason = " ".join(self._key.redact(reason).split())
        if len(reason) > 300:
            reason = reason[:299] + "…"
        return f"the request to the Materials Project for {what} failed: {reason}; run the same command again later"


def chunks(ids: Sequence[str], size: int = IDS_PER_REQUEST) -> Iterator[list[str]]:
    """Parts of a list with at most ``size`` ids each."""
    for start in range(0, len(ids), size):
        yield list(ids[start : start + size])
