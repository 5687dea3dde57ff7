"""Locks that let one process train a run, and resuming of interrupted runs.

A run is a model with its configuration, split and seed; several runs of one name and target can train at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from registry.errors import ModelError
from registry.model_store import find_experiment, start_experiment
from registry.models import Experiment
from registry.provenance import code_version, release
from train.config.config import TrainConfig

__all__ = ["begin_run", "run_key", "run_lock"]

# First key of PostgreSQL's two-key advisory locks; the second is the run.
_LOCK_CLASS = 0x656365


def run_key(identity: Mapping[str, Any]) -> str:
    """Key that distinguishes the runs of one name and target.

    Parameters
    ----------
    identity
        With config_sha256, seed and split_id, as ``registry.model_store.find_experiment`` takes them.
    """
    return f"{identity['config_sha256']}:{identity['seed']}:{identity['split_id']}"


@contextmanager
def run_lock(engine: Engine, name: str, target: str, *, run: str = "") -> Iterator[None]:
    """Lock a run while it is trained; PostgreSQL releases the lock when the process dies.

    Parameters
    ----------
    engine
        A connection of its own is opened for the lock.
    name, target
        The model.
    run
        Key of the run, as :func:`run_key` gives it.

    Raises
    ------
    ModelError
        If another process holds the lock.
    """
    connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    connection.detach()  # out of the pool, which may be small
    key = func.hashtext(f"{name}:{target}:{run}")
    if not connection.scalar(select(func.pg_try_advisory_lock(_LOCK_CLASS, key))):
        connection.close()
        raise ModelError(f"{name}:{target} is being trained by another process; wait for it, or stop it")
    try:
        yield
    finally:
        release(connection, select(func.pg_advisory_unlock(_LOCK_CLASS, key)))


def begin_run(
    session: Session, config: TrainConfig, stored: dict[str, Any], identity: Mapping[str, Any], *, again: bool
) -> tuple[Experiment, bool]:
    """Begin an experiment, or resume the interrupted one of the same identity.

    Parameters
    ----------
    session
        Written to, not committed; the caller holds the :func:`run_lock`.
    config
        Configuration of the model.
    stored
        What the experiment stores as its configuration.
    identity
        Name, target, config_sha256, seed and split_id, as ``registry.model_store.find_experiment`` takes them.
    again
        Begin a new version even if one was interrupted.

    Returns
    -------
    tuple
        The experiment, and whether it is resumed. One that another version of the code began is not resumed.
    """
    # This process holds the lock: a run that is still "running" belonged to a process that died.
    session.execute(
        update(Experiment)
        .where(
            *(getattr(Experiment, column) == value for column, value in identity.items()),
            Experiment.status == "running",
        )
        .values(status="interrupted", finished_at=func.clock_timestamp())
    )
    interrupted = None if again else find_experiment(session, **identity, status="interrupted")
    if interrupted is not None and interrupted.code_version == code_version():
        interrupted.status, interrupted.finished_at = "running", None
        return interrupted, True
    return (
        start_experiment(
            session,
            name=identity["name"],
            target=identity["target"],
            kind=config.kind,
            config=stored,
            seed=identity["seed"],
            split_id=identity["split_id"],
        ),
        False,
    )
