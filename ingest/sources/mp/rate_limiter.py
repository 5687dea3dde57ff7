"""Rate limiter for the Materials Project, shared by all processes with one ``ECDREG_HOME``.

At most 25 requests per second and 4 downloads at a time, for any number of worker processes and of
runs. The state is a folder of lock files; the operating system releases the locks of a process
that dies.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

__all__ = ["RETRIED_STATUSES", "RateLimiter", "RetryableError", "parse_retry_after"]

RETRIED_STATUSES = frozenset({429, 500, 502, 503, 504})
"""HTTP statuses after which a request is repeated."""

_POLL_INTERVAL = 0.02
"""Time between two looks for a free download slot [s]."""
_LOGGED_WAIT = 1.0
"""Waits for a turn from this length on are logged [s]."""

T = TypeVar("T")

_log = logging.getLogger("ingest")


class RetryableError(Exception):
    """A failed attempt that may succeed when it is repeated.

    Parameters
    ----------
    reason
        Cause of the failure.
    retry_after
        Delay that the server requires before the next attempt [s].
    """

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


@dataclass(frozen=True)
class RateLimiter:
    """Rates, retries and timeouts. Picklable; instances with the same folder share one limit."""

    folder: Path
    """Folder of the lock files."""
    per_second: float = 25.0
    """Requests per second of all processes with this folder together."""
    downloads: int = 4
    """Simultaneous downloads of all processes with this folder together."""
    attempts: int = 6
    """Maximum number of attempts of one request."""
    backoff: float = 1.0
    """First delay before another attempt [s]; it doubles each time, with a random factor."""
    max_retry_after: float = 120.0
    """Longest ``Retry-After`` of a server that is waited for; a longer one ends the attempts [s]."""
    connect_timeout: float = 15.0
    """Timeout of a connection [s]."""
    read_timeout: float = 90.0
    """Longest time without a byte from the server [s]."""

    def wait_for_turn(self) -> None:
        """Wait until the next request may be sent."""
        self.folder.mkdir(parents=True, exist_ok=True)
        last_request = self.folder / "pace"
        # Own code: neither filelock nor tenacity limits a rate across processes; the time of the last request is kept
        # in a file under the lock.
        with FileLock(self.folder / "pace.lock").acquire(poll_interval=0.005):
            now = time.time()
            last = _read_time(last_request)
            # A time far in the future was written before the clock was set back.
            turn = max(now, last + 1 / self.per_second) if last < now + 60 else now
            last_request.write_text(f"{turn:.6f}", encoding="ascii")
        if turn - now >= _LOGGED_WAIT:
            _log.debug("rate limit: waiting %.1f s for the next request", turn - now)
        time.sleep(max(0.0, turn - now))

    @contextmanager
    def download_slot(self) -> Iterator[None]:
        """Hold one of the download slots; wait until one is free."""
        self.folder.mkdir(parents=True, exist_ok=True)
        locks = [FileLock(self.folder / f"download-{number}") for number in range(self.downloads)]
        waiting = False
        while True:
            for lock in locks:
                try:
                    slot = lock.acquire(blocking=False)
                except Timeout:
                    continue
                with slot:
                    yield
                return
            if not waiting:
                _log.debug("rate limit: waiting for one of %d download slots", self.downloads)
                waiting = True
            time.sleep(_POLL_INTERVAL)

    def retry(self, attempt: Callable[[], T]) -> T:
        """Repeat an attempt until it succeeds, at most :attr:`attempts` times.

        Parameters
        ----------
        attempt
            Raises :class:`RetryableError` where another attempt may succeed; other errors are not
            caught.

        Raises
        ------
        RetryableError
            From the last attempt.
        """
        retrying = Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=self._delay_of,
            retry=retry_if_exception_type(RetryableError),
            before_sleep=_log_retry,
            reraise=True,
        )
        return retrying(attempt)

    def delay(self, attempt: int, retry_after: float | None = None) -> float:
        """Delay before the next attempt [s].

        Parameters
        ----------
        attempt
            Number of failed attempts.
        retry_after
            Delay that the server requires [s]; it applies if it is longer.
        """
        own = self.backoff * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.0)
        return max(own, retry_after or 0.0)

    def _delay_of(self, state: RetryCallState) -> float:
        # Own code: tenacity has no wait strategy that respects Retry-After.
        error = state.outcome.exception() if state.outcome is not None else None
        return self.delay(state.attempt_number, error.retry_after if isinstance(error, RetryableError) else None)


def parse_retry_after(value: str | None) -> float | None:
    """Delay of a ``Retry-After`` header [s], from a number or a date; None where it has neither."""
    if value is None:
        return None
    value = value.strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _read_time(path: Path) -> float:
    try:
        return float(path.read_text(encoding="ascii") or 0)
    except FileNotFoundError:
        return 0.0
    except ValueError:
        return 0.0  # the process died while it wrote the file


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    delay = state.next_action.sleep if state.next_action is not None else 0.0
    _log.debug("attempt %d failed (%s); retry in %.1f s", state.attempt_number, error, delay)
