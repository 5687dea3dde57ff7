"""Pools of worker processes with one thread each, which always end with the main process.

Workers are forked from a fork server, so that modules with a long import time are imported once. They ignore
Ctrl-C, which the main process handles, and exit when the main process has ended for any reason.

The pool is the standard library's :class:`~concurrent.futures.ProcessPoolExecutor`; this module adds its shutdown,
which ends running work, and the environment of the workers.
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

# Numbers of threads of the numerical libraries; the processes already share the cores.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# Environment variables that workers do not need: the data that they download are public.
_SECRETS = ("MP_API_KEY",)


@contextmanager
def worker_pool(workers: int, *, preload: Sequence[str]) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that are terminated at the end of the context, also if their work is not finished.

    Parameters
    ----------
    workers
        Number of processes.
    preload
        Modules that the fork server imports once for all workers.
    """
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, mp_context=_context(preload), initializer=_begin_worker)
    results: Any = pool._result_queue
    try:
        yield pool
    finally:
        # Not shutdown(wait=True): it waits for running work, although the results are no longer needed.
        pool.shutdown(wait=False, cancel_futures=True)
        processes = set(multiprocessing.active_children()) - before
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()
        # A worker that was terminated while it wrote has left a partial result. The pool's thread would wait for the
        # rest without limit, and Python for that thread. Closing the writer ends the read.
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
    """Environment and signal handler that the fork server and its children inherit when they start."""
    before = {name: os.environ.get(name) for name in (*_THREADS, *_SECRETS)}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    for name in _SECRETS:
        os.environ.pop(name, None)
    in_main = threading.current_thread() is threading.main_thread()
    # A child inherits an ignored signal, and ignores it from its first instruction on.
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
    for name in _SECRETS:  # needed for spawned processes, which inherit the environment of the main process
        os.environ.pop(name, None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, daemon=True, name="exit-with-parent").start()


def _exit_with_parent() -> None:
    # A killed main process cannot terminate its workers, which would wait for work without limit.
    parent: Any = multiprocessing.parent_process()
    wait_for_any([parent.sentinel])
    sys.stderr.flush()
    os._exit(1)
