"""Worker processes that prepare crystals, on all cores (:mod:`registry.jobs.processes`).

When a worker dies, the crystals in progress are prepared one by one to find the one that causes it.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ingest.preparation.checksums import needs_description
from ingest.preparation.options import IngestOptions
from ingest.preparation.outcome import Prepared
from ingest.preparation.prepare import prepare
from ingest.sources.base import SourceRecord
from registry.jobs.processes import worker_pool

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["default_workers", "prepare_all"]

# Crystals in progress per worker: enough that no worker waits for the main process, few enough for the memory.
_IN_PROGRESS = 3
# Time between two checks whether the run was interrupted [s].
_POLL_INTERVAL = 0.2


def default_workers() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare_all(
    records: Sequence[SourceRecord], options: IngestOptions, *, stopped: Callable[[], bool]
) -> Iterator[tuple[SourceRecord, Prepared]]:
    """Prepare records in worker processes, in the order in which they finish.

    Parameters
    ----------
    records
        Records to prepare.
    options
        Options of the ingest; ``workers`` is the number of processes, 0 for none.
    stopped
        Called several times per second; the iterator ends soon after it returns True, with all
        workers stopped.

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
    preload = ["robocrys"] if any(needs_description(record, options) for record in records) else []
    waiting = list(reversed(records))
    while waiting and not stopped():
        suspects = yield from _until_a_worker_dies(
            waiting, options, workers=min(workers, len(waiting)), preload=preload, stopped=stopped
        )
        for record in suspects:
            if stopped():
                return
            yield record, _alone(record, options, preload=preload, stopped=stopped)


def _until_a_worker_dies(
    waiting: list[SourceRecord],
    options: IngestOptions,
    *,
    workers: int,
    preload: list[str],
    stopped: Callable[[], bool],
) -> Generator[tuple[SourceRecord, Prepared], None, list[SourceRecord]]:
    """Prepare ``waiting`` from its end; return the records that were in progress when a worker died."""
    in_progress: dict[Future[Prepared], SourceRecord] = {}
    with _pool(workers, preload) as pool:
        while (waiting or in_progress) and not stopped():
            try:
                while waiting and len(in_progress) < workers * _IN_PROGRESS:
                    in_progress[pool.submit(prepare, waiting[-1], options)] = waiting[-1]
                    waiting.pop()
            except BrokenProcessPool:
                return list(in_progress.values())
            done, _ = wait(in_progress, timeout=_POLL_INTERVAL, return_when=FIRST_COMPLETED)
            for future in done:
                if isinstance(future.exception(), BrokenProcessPool):
                    return list(in_progress.values())
                yield in_progress.pop(future), future.result()
    return []


def _alone(
    record: SourceRecord, options: IngestOptions, *, preload: list[str], stopped: Callable[[], bool]
) -> Prepared:
    """Prepare one record in a process of its own; if the process dies, this record is the cause."""
    with _pool(1, preload) as pool:
        future = pool.submit(prepare, record, options)
        while not stopped():
            done, _ = wait([future], timeout=_POLL_INTERVAL)
            if not done:
                continue
            if isinstance(future.exception(), BrokenProcessPool):
                break
            return future.result()
        else:
            return Prepared(record.source_id, deferred="interrupted before it was prepared")
    return Prepared(record.source_id, deferred="its worker process died, possibly for lack of memory")


def _pool(workers: int, preload: list[str]) -> AbstractContextManager[ProcessPoolExecutor]:
    return worker_pool(workers, preload=["ingest.preload", *preload])
