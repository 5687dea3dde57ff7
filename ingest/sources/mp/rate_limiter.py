"""How hard the Materials Project may be asked: by all processes with one ``ECDREG_HOME`` together.

At most 25 requests a second and 4 downloads at a time, whatever the number of worker processes
and of runs. The state lies in a folder of lock files, which the system releases when a process
dies, however it dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RETRIED", "RateLimiter"]

RETRIED = frozenset({429, 500, 502, 503, 504})
"""Answers that may be others a moment later."""

_LOOK_AGAIN = 0.02  # [s]


@dataclass(frozen=True)
class RateLimiter:
    """Rates, patience and limits. Picklable; two with the same folder keep to them together."""

    folder: Path
    """Where the lock files lie."""
    per_second: float = 25.0
    """Requests a second, all processes with this folder together."""
    downloads: int = 4
    """Objects that are downloaded at a time, all processes with this folder together."""
    attempts: int = 6
    """How often something is asked for before it is given up."""
    backoff: float = 1.0
    """First pause before another attempt [s]; it doubles each time, with a jitter."""
    longest_pause: float = 120.0
    """A server that asks for a longer pause is believed, and not asked again [s]."""
    connect_timeout: float = 15.0
    """[s]"""
    read_timeout: float = 90.0
    """Longest silence of a server [s]."""

    def wait_for_turn(self) -> None:
        """Return when the next request may be sent."""
        with self._locked("pace") as file:
            now = time.time()
            try:
                last = float(os.pread(file, 64, 0) or 0)
            except ValueError:
                last = 0.0  # cut off while it was written
            # A time far ahead is of a clock that was put back.
            turn = max(now, last + 1 / self.per_second) if last < now + 60 else now
            text = f"{turn:.6f}".encode()
            os.pwrite(file, text, 0)
            os.ftruncate(file, len(text))
        time.sleep(max(0.0, turn - now))

    @contextmanager
    def download_slot(self) -> Iterator[None]:
        """Hold one of the places for a download; wait until one is free."""
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            for number in range(self.downloads):
                file = os.open(self.folder / f"download-{number}", os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(file)
                    continue
                try:
                    yield
                finally:
                    os.close(file)
                return
            time.sleep(_LOOK_AGAIN)

    def pause(self, attempt: int, asked: float | None = None) -> float:
        """Seconds to wait after a failed attempt.

        Parameters
        ----------
        attempt
            Number of attempts that failed so far.
        asked
            What the server asked for, which counts if it is more [s].
        """
        own = self.backoff * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.0)
        return max(own, asked or 0.0)

    @contextmanager
    def _locked(self, name: str) -> Iterator[int]:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file
        finally:
            with contextlib.suppress(OSError):
                os.close(file)
