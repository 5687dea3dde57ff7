"""The project's own client, ``mp-api``, with the manners and the checks that it lacks.

Every request goes through one :class:`requests.Session` of ours, with timeouts, retries that
honour ``Retry-After``, and a rate that all processes of the machine share. Whatever goes wrong
becomes one :class:`~registry.errors.SourceError` of one line, in which the key never stands.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from ingest.sources.mp.rate_limiter import RateLimiter
from ingest.sources.mp.session import BLOCKED, WHERE_KEYS_COME_FROM, PoliteSession
from registry.errors import ConfigurationError, SourceError

if TYPE_CHECKING:
    from requests import Session

__all__ = ["DEFAULT_ENDPOINT", "ApiKey", "MpClient", "chunks"]

DEFAULT_ENDPOINT = "https://api.materialsproject.org/"

IDS_PER_REQUEST = 100
"""Ids that one URL names; longer ones are refused."""

_KEY_LENGTH = 32
T = TypeVar("T")
Document = dict[str, Any]


class ApiKey:
    """A key that does not show itself.

    Parameters
    ----------
    value
        32 characters; None, or nothing: there is none.

    Raises
    ------
    ConfigurationError
        If it cannot be one. The message does not repeat it.
    """

    def __init__(self, value: str | None) -> None:
        value = (value or "").strip()
        if not value:
            raise ConfigurationError(f"the Materials Project asks for a key; {WHERE_KEYS_COME_FROM}")
        if len(value) != _KEY_LENGTH or not value.isalnum() or not value.isascii():
            raise ConfigurationError(
                f"MP_API_KEY has {len(value)} characters, a key has {_KEY_LENGTH} letters and digits; "
                f"{WHERE_KEYS_COME_FROM}"
            )
        self._value = value

    def reveal(self) -> str:
        """The key itself, for a request's header and nothing else."""
        return self._value

    def hidden_in(self, text: str) -> str:
        """The text with the key made unreadable, wherever it came from."""
        return text.replace(self._value, "[key]")

    def __repr__(self) -> str:
        return "ApiKey([hidden])"

    def __reduce__(self) -> str:
        raise TypeError("a key does not leave the process")


class MpClient:
    """What this project asks the Materials Project for.

    Parameters
    ----------
    key
        The user's key.
    manners
        Rates and patience.
    endpoint
        URL of the API.
    page
        Documents per request of a series.
    """

    def __init__(
        self, key: ApiKey, manners: RateLimiter, *, endpoint: str = DEFAULT_ENDPOINT, page: int = 1000
    ) -> None:
        self._key = key
        self._page = page
        self._manners = manners
        self.endpoint = endpoint if endpoint.endswith("/") else endpoint + "/"

    def __repr__(self) -> str:
        return f"MpClient({self.endpoint!r})"

    @cached_property
    def database_version(self) -> str:
        """Version of the project's database, as ``2025.09.25``.

        Raises
        ------
        SourceError
            If the service does not answer, or blocks this machine.
        """
        heartbeat = self._ask("heartbeat", self._heartbeat)
        version = heartbeat.get("db_version")
        if heartbeat.get("version") == "blocked":
            raise SourceError(BLOCKED)
        if not isinstance(version, str) or not version:
            raise SourceError(f"{self.endpoint}heartbeat does not say its database version; is it the API?")
        return version

    def summaries(self, filters: Mapping[str, Any], *, fields: Sequence[str]) -> list[Document]:
        """Summary documents of one series of pages, each material once, none left out.

        The client takes a page that comes back empty for the end. The number of documents is
        compared with what the service counts, and a series that falls short is asked for again.

        Parameters
        ----------
        filters
            Query parameters, at least one.
        fields
            Top-level fields of a document.

        Raises
        ------
        SourceError
            If the service refuses, or the series stays short.
        """
        found: dict[str, Document] = {}
        expected = 0
        counted = {name: ",".join(value) if isinstance(value, list) else value for name, value in filters.items()}
        for attempt in range(1, self._manners.attempts + 1):
            documents = self._ask(
                "summaries", lambda: self._summary.search(**filters, fields=list(fields), chunk_size=self._page)
            )
            found |= {str(document["material_id"]): document for document in documents if "material_id" in document}
            expected = self._ask("a count", lambda: self._summary.count(dict(counted)))
            if len(found) >= expected:
                return list(found.values())
            if attempt < self._manners.attempts:
                time.sleep(self._manners.pause(attempt))
        raise SourceError(
            f"the Materials Project counts {expected} materials and sent {len(found)}, {self._manners.attempts} times; "
            "run the same command again later"
        )

    def summaries_by_id(self, ids: Sequence[str], *, fields: Sequence[str]) -> dict[str, Document]:
        """Summary documents by material id; ids that the project does not know are missing.

        Raises
        ------
        SourceError
            If the service refuses.
        """
        return self._by_id("summaries", ids, lambda some: self._summary.search(material_ids=some, fields=list(fields)))

    def materials(self, ids: Sequence[str], *, fields: Sequence[str]) -> dict[str, Document]:
        """Core documents (which calculations there are) by material id.

        Raises
        ------
        SourceError
            If the service refuses.
        """
        return self._by_id("calculations", ids, lambda some: self._core.search(material_ids=some, fields=list(fields)))

    def descriptions(self, ids: Sequence[str]) -> dict[str, Document]:
        """Robocrystallographer's texts by material id, for those that have one.

        Raises
        ------
        SourceError
            If the service refuses.
        """
        fields = ["material_id", "description", "robocrys_version"]
        return self._by_id(
            "texts", ids, lambda some: self._core.robocrys.search_docs(material_ids=some, fields=fields), again=False
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
            found += self._ask("tasks", lambda some=some: self._core.tasks.search(task_ids=some, fields=fields))  # type: ignore[misc]
        return found

    # ------------------------------------------------------------------------- within

    def _by_id(
        self, what: str, ids: Sequence[str], search: Callable[[list[str]], list[Document]], *, again: bool = True
    ) -> dict[str, Document]:
        found: dict[str, Document] = {}
        missing = list(ids)
        # An empty page and an unknown id look the same: what is missing is asked for once more.
        for _ in range(2 if again else 1):
            for some in chunks(missing):
                documents = self._ask(what, lambda some=some: search(some))  # type: ignore[misc]
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
        assert self.database_version  # asked with patience, before the client asks without
        return self._ask("heartbeat", self._new_rester)

    def _new_rester(self) -> Any:
        with warnings.catch_warnings():
            # Deprecations inside its dependencies, while they are imported.
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
        return PoliteSession(self._key.reveal(), self._manners)

    def _heartbeat(self) -> dict[str, Any]:
        answer = self._session.get(f"{self.endpoint}heartbeat")
        heartbeat = answer.json() if answer.status_code == 200 else None
        if not isinstance(heartbeat, dict):
            raise SourceError(f"{self.endpoint}heartbeat answers {answer.status_code}; see status.materialsproject.org")
        return heartbeat

    def _ask(self, what: str, request: Callable[[], T]) -> T:
        """The answer to a request; any failure as one line."""
        from requests import RequestException

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what the client thinks of our way of asking
                return request()
        except SourceError:
            raise
        except (RequestException, OSError) as error:
            raise SourceError(self._line(what, f"{type(error).__name__}: {error}")) from None
        except Exception as error:  # noqa: BLE001  the client raises JSONDecodeError, KeyError, its own, and others
            raise SourceError(self._line(what, f"{type(error).__name__}: {error}")) from None

    def _line(self, what: str, reason: str) -> str:
        reason = " ".join(self._key.hidden_in(reason).split())
        if len(reason) > 300:
            reason = reason[:299] + "…"
        return f"the Materials Project did not answer when asked for {what}: {reason}; run the same command again later"


def chunks(ids: Sequence[str], size: int = IDS_PER_REQUEST) -> Iterator[list[str]]:
    """Parts of a list, as long as one URL carries."""
    for start in range(0, len(ids), size):
        yield list(ids[start : start + size])
