"""Worker processes that prepare crystals: all cores, one thread each, no orphans.

Workers come from a fork server, so that what takes long to import is imported once. They ignore
Ctrl-C, which the main process handles, and leave when the main process is gone, however it
ended. A crystal whose worker dies is found by trying the crystals in question one by one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for_any
from typing import TYPE_CHECKING, Any

from ingest.prepare import IngestOptions, Prepared, needs_describing, prepare
from ingest.sources.base import SourceRecord

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.context import BaseContext

__all__ = ["default_workers", "prepare_all"]

# Enough that no worker waits for the main process to write, few enough to stop and to hold in memory.
_AHEAD = 3
# How soon a wish to stop is seen [s].
_PATIENCE = 0.2
# Threads of the numerical libraries: the cores are shared out among the processes already.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# What workers have no use for: what they download is open data.
_SECRETS = ("MP_API_KEY",)


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


@contextmanager
def _pool(workers: int, heavy: list[str]) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes are gone at the end, finished or not."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, mp_context=_context(heavy), initializer=_begin_worker)
    try:
        yield pool
    finally:
        # Waiting politely would mean waiting for crystals that nobody wants any more.
        pool.shutdown(wait=False, cancel_futures=True)
        processes = set(multiprocessing.active_children()) - before
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _context(heavy: list[str]) -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ingest.preload", *heavy])
    from multiprocessing import forkserver

    with _inherited_by_workers():
        forkserver.ensure_running()
    return context


@contextmanager
def _inherited_by_workers() -> Iterator[None]:
    """What the fork server and its children take over from this process when they start."""
    before = {name: os.environ.get(name) for name in (*_THREADS, *_SECRETS)}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    for name in _SECRETS:
        os.environ.pop(name, None)
    in_main = threading.current_thread() is threading.main_thread()
    # An ignored signal stays ignored in a child, even while it still imports.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main else None
    try:
        yield
    finally:
        if in_main:
            signal.signal(signal.SIGINT, handler)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin_worker() -> None:
    for name in _SECRETS:  # where processes are not forked from a server that never had them
        os.environ.pop(name, None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_with_parent, daemon=True, name="leave-with-parent").start()


def _leave_with_parent() -> None:
    # A killed main process cannot stop its workers, and they would wait for work for ever.
    parent: Any = multiprocessing.parent_process()
    wait_for_any([parent.sentinel])
    sys.stderr.flush()
    os._exit(1)
