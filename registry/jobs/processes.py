"""Pools of worker processes: one thread each, no orphans, and an end that never waits for ever.

Workers come from a fork server, so that what takes long to import is imported once. They ignore Ctrl-C, which the
main process handles, and leave when the main process is gone, however it ended.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for_any
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

__all__ = ["worker_pool"]

# Threads of the numerical libraries: the cores are shared out among the processes already.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# What workers have no use for: what they download is open data.
_SECRETS = ("MP_API_KEY",)


@contextmanager
def worker_pool(workers: int, *, preload: Sequence[str]) -> Iterator[ProcessPoolExecutor]:
    """A pool whose processes are gone at the end, finished or not.

    Parameters
    ----------
    workers
        Number of processes.
    preload
        Modules that the fork server imports once for all of them.
    """
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, mp_context=_context(preload), initializer=_begin_worker)
    results: Any = pool._result_queue
    try:
        yield pool
    finally:
        # Waiting politely would mean waiting for work that nobody wants any more.
        pool.shutdown(wait=False, cancel_futures=True)
        processes = set(multiprocessing.active_children()) - before
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        # A worker that was cut off while it wrote has left half a result, and the pool's own thread would wait for the
        # other half for ever, and Python for that thread: without a writer it sees the end.
        results._writer.close()


def _context(preload: Sequence[str]) -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
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
