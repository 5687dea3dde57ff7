"""Peak memory of a PostgreSQL server and this process."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
from sqlalchemy import Engine, text

__all__ = ["peak_memory"]


@contextmanager
def peak_memory(engine: Engine, *, watch: bool) -> Iterator[list[float]]:
    """Largest sum of the proportional memory [GiB] of the server's processes and this process.

    Memory that processes share is divided among them. It is measured once in a second, on Linux only.

    Parameters
    ----------
    engine
        A database of a server on this machine.
    watch
        False: measure nothing.

    Yields
    ------
    list of float
        One element, the largest sum so far.
    """
    peak = [0.0]
    if not watch or sys.platform != "linux":
        yield peak
        return
    with engine.connect() as connection:
        backend = int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)
    postmaster = psutil.Process(psutil.Process(backend).ppid())
    done = threading.Event()

    def measure() -> None:
        while not done.wait(1.0):
            processes = [psutil.Process(), postmaster, *postmaster.children()]
            peak[0] = max(peak[0], sum(map(_proportional_memory, processes)) / 2**30)

    thread = threading.Thread(target=measure, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _proportional_memory(process: psutil.Process) -> int:
    """Proportional memory [byte]; 0 for a process that has ended."""
    with suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0
