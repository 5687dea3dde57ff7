"""Worker processes that prepare crystals, on all cores (:mod:`registry.jobs.processes`).

A crystal whose worker dies is found by trying the crystals in question one by one.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ingest.prepare import IngestOptions, Prepared, needs_describing, prepare
from ingest.sources.base import SourceRecord
from registry.jobs.processes import worker_pool

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["default_workers", "prepare_all"]

# Enough that no worker waits for the main process to write, few enough to stop and to hold in memory.
_AHEAD = 3
# How soon a constraint to stop is seen [s].
_PATIENCE = 0.2


def default_workers() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_all(
    records: Sequence[SourceRecord], options: IngestOptions, *, stopped: Callable[[], bool]
) -> Iterator[tuple[SourceRecord, Prepared]]:
    """Prepare records in worker processes; what is ready first comes first.

    Parameters
    ----------
    records
        What to prepare.
    options
        Of the ingest; ``workers`` is the number of processes, 0 for none.
    stopped
        Asked several times a second; the iterator ends soon after it says True, and no worker
        is left.

    Raises
    ------
    ConfigurationError
        If the options name a recipe that does not exist.
    """
    workers = default_workers() if options.workers is None else options.workers
    if workers == 0:
        for record in records:
            if stopped():
                return
            yield record, prepare(record, options)
        return
    heavy = ["robocrys"] if any(needs_describing(record, options) for record in records) else []
    waiting = list(reversed(records))
    while waiting and not stopped():
        in_question = yield from _until_a_worker_dies(waiting, options, min(workers, len(waiting)), heavy, stopped)
        for record in in_question:
            if stopped():
                return
            yield record, _alone(record, options, heavy, stopped)


def _until_a_worker_dies(
    waiting: list[SourceRecord],
    options: IngestOptions,
    workers: int,
    heavy: list[str],
    stopped: Callable[[], bool],
) -> Generator[tuple[SourceRecord, Prepared], None, list[SourceRecord]]:
    """Work through ``waiting`` from its end; returns the records that were in work when a worker died."""
    in_work: dict[Future[Prepared], SourceRecord] = {}
    with _pool(workers, heavy) as pool:
        while (waiting or in_work) and not stopped():
            try:
                while waiting and len(in_work) < workers * _AHEAD:
                    in_work[pool.submit(prepare, waiting[-1], options)] = waiting[-1]
                    waiting.pop()
            except BrokenProcessPool:
                return list(in_work.values())
            done, _ = wait(in_work, timeout=_PATIENCE, return_when=FIRST_COMPLETED)
            for future in done:
                if isinstance(future.exception(), BrokenProcessPool):
                    return list(in_work.values())
                yield in_work.pop(future), future.result()
    return []


def _alone(record: SourceRecord, options: IngestOptions, heavy: list[str], stopped: Callable[[], bool]) -> Prepared:
    """Prepare one record in a process of its own, whose death is then known to be this record's."""
    with _pool(1, heavy) as pool:
        future = pool.submit(prepare, record, options)
        while not stopped():
            done, _ = wait([future], timeout=_PATIENCE)
            if not done:
                continue
            if isinstance(future.exception(), BrokenProcessPool):
                break
            return future.result()
        else:
            return Prepared(record.source_id, deferred="stopped before it was done")
    return Prepared(record.source_id, deferred="its worker process died; was there too little memory?")


def _pool(workers: int, heavy: list[str]) -> AbstractContextManager[ProcessPoolExecutor]:
    return worker_pool(workers, preload=["ingest.preload", *heavy])
