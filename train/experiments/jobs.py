"""Jobs: many experiments one by one, on the cores of this machine, or on a Dask cluster.

A worker keeps its engine, backbones and features from one job to the next. Workers of this machine are those of
:mod:`registry.jobs.processes`.
An interrupted job is resumed by the next call that runs it, as :func:`train.experiments.run.run_experiment` does.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from registry.database import connect
from registry.errors import ConfigurationError, EcdregError, ModelError
from registry.jobs.processes import worker_pool
from registry.jobs.progress import Progress, Silent
from registry.properties import refresh_properties
from registry.settings import Settings
from train.config.config import TrainConfig
from train.experiments.context import ExperimentContext
from train.experiments.results import ExperimentResult
from train.experiments.run import run_experiment

__all__ = ["Job", "JobOutcome", "run_jobs"]

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


class Job(Protocol):
    """One experiment of a list."""

    @property
    def label(self) -> str:
        """Name of the job in messages."""

    @property
    def config(self) -> TrainConfig:
        """Configuration of the model."""

    @property
    def split(self) -> str:
        """Name of the split."""

    @property
    def seed(self) -> int:
        """Seed of the experiment."""

    @property
    def needs(self) -> tuple[int, ...]:
        """Places in the list of the jobs that must be finished before."""


@dataclass(frozen=True)
class JobOutcome:
    """Outcome of a job."""

    place: int
    """In the list of jobs."""
    result: ExperimentResult | None
    error: str | None = None
    """Reason why there is no result; one line."""


def run_jobs(
    settings: Settings,
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
    on_outcome: Callable[[JobOutcome], None] | None = None,
) -> list[JobOutcome]:
    """Run jobs, each after those that it needs; finished experiments are not repeated.

    Parameters
    ----------
    settings
        Of the database and the artifacts, which every worker must reach.
    jobs
        In an order in which they could be run one by one.
    workers
        Processes of this machine; 1 runs everything in this process.
    scheduler
        Address of a Dask scheduler, ``tcp://host:8786``, instead of processes of this machine.
    progress
        Receives each job.
    on_outcome
        Called with each outcome as it comes.

    Returns
    -------
    list of JobOutcome
        In the order of the jobs. One that fails takes those along that need it, and no others.

    Raises
    ------
    ConfigurationError
        If the scheduler cannot be used: no Dask, no answer, or an embedded database that its workers may not reach.
    ModelError
        If a worker process dies.
    """
    progress = progress or Silent()
    progress.begin("experiments", len(jobs))
    outcomes: dict[int, JobOutcome] = {}

    def note(outcome: JobOutcome) -> None:
        outcomes[outcome.place] = outcome
        status = outcome.error or (outcome.result.outcome if outcome.result else "")
        if outcome.error:
            progress.message(f"{jobs[outcome.place].label}: {outcome.error}")
        progress.advance(1, f"{jobs[outcome.place].label}: {status}")
        if on_outcome is not None:
            on_outcome(outcome)

    try:
        if scheduler is None and workers <= 1:
            try:
                for place, job in enumerate(jobs):
                    blocked = _blocked(job, place, jobs, outcomes)
                    note(blocked or _run(settings, place, job))
            finally:
                _close()
        else:
            own = worker_pool(min(workers, max(1, len(jobs))), preload=["train.experiments.run"])
            with own if scheduler is None else _dask(settings, scheduler) as executor:
                _all_at_once(executor, settings, jobs, outcomes, note)
    finally:
        progress.end()
    return [outcomes[place] for place in range(len(jobs))]


def _all_at_once(
    executor: Executor,
    settings: Settings,
    jobs: Sequence[Job],
    outcomes: dict[int, JobOutcome],
    note: Callable[[JobOutcome], None],
) -> None:
    waiting = list(range(len(jobs)))
    in_work: dict[Future[JobOutcome], int] = {}
    while waiting or in_work:
        for place in list(waiting):
            job = jobs[place]
            if not all(need in outcomes for need in job.needs):
                continue
            waiting.remove(place)
            if (blocked := _blocked(job, place, jobs, outcomes)) is not None:
                note(blocked)
            else:
                in_work[executor.submit(_run, settings, place, job)] = place
        if not in_work:
            continue
        done, _ = wait(in_work, return_when=FIRST_COMPLETED)
        for future in done:
            place = in_work.pop(future)
            if isinstance(future.exception(), BrokenProcessPool):
                raise ModelError(
                    f"a worker process died at or beside {jobs[place].label}; was there too little memory? Fewer --jobs"
                    " take less, and the same command goes on"
                )
            note(future.result())


def _blocked(job: Job, place: int, jobs: Sequence[Job], outcomes: dict[int, JobOutcome]) -> JobOutcome | None:
    failed = [need for need in job.needs if outcomes[need].error is not None]
    if not failed:
        return None
    return JobOutcome(place, None, f"not trained: {jobs[failed[0]].label} failed")


# ----------------------------------------------------------------------------- one worker

# By thread, because a Dask worker may have several.
_kept = threading.local()


def _run(settings: Settings, place: int, job: Job) -> JobOutcome:
    """Run one job in the context of this worker; an error of this project is an outcome."""
    try:
        result = run_experiment(_context(settings), job.config, split=job.split, seed=job.seed, baselines=False)
    except EcdregError as error:
        return JobOutcome(place, None, " ".join(str(error).split()))
    return JobOutcome(place, result)


def _context(settings: Settings) -> ExperimentContext:
    """The context of this worker, kept from one job to the next."""
    if getattr(_kept, "settings", None) != settings:
        _close()
        engine = connect(settings, application_name="ecdreg worker")
        _kept.context = ExperimentContext.open(engine, settings)
        _kept.settings = settings
    else:
        with _kept.context.engine.connect() as connection:
            refresh_properties(connection)  # a user may have added one since this worker connected
    context: ExperimentContext = _kept.context
    return context


def _close() -> None:
    """Close the objects that this worker keeps."""
    if getattr(_kept, "settings", None) is not None:
        _kept.context.engine.dispose()
        _kept.settings = _kept.context = None


# ------------------------------------------------------------------------------------- Dask


@contextmanager
def _dask(settings: Settings, scheduler: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError:
        raise ConfigurationError("--scheduler needs Dask; install it with `pip install 'ecdreg[dask]'`") from None
    host = urlsplit(scheduler).hostname
    if settings.embedded and host not in (*_LOCAL_HOSTS, socket.gethostname()):
        raise ConfigurationError(
            f"workers of {scheduler} cannot reach the embedded database of this machine; set ECDREG_DATABASE_URL to a"
            " server that they reach, and ECDREG_HOME to a folder that they share"
        )
    try:
        client = Client(scheduler, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"no Dask scheduler answers at {scheduler} ({error}); start one there") from error
    try:
        # One experiment has side effects: Dask must not answer with an earlier result of equal arguments.
        executor: Executor = client.get_executor(pure=False)
        yield executor
    finally:
        client.close()
