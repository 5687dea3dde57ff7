"""Who trains what: one process at a time trains a run, and what it leaves when it dies is taken up again.

A run is a model with its configuration, split and seed: several of one name and target train side by side.
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

__all__ = ["begin", "held", "run_key"]

# First key of PostgreSQL's two-key advisory locks; the second is the run.
_LOCK_CLASS = 0x656365


def run_key(identity: Mapping[str, Any]) -> str:
    """What tells the runs of one name and target apart.

    Parameters
    ----------
    identity
        With config_sha256, seed and split_id, as ``registry.model_store.find_experiment`` takes them.
    """
    return f"{identity['config_sha256']}:{identity['seed']}:{identity['split_id']}"


@contextmanager
def held(engine: Engine, name: str, target: str, *, run: str = "") -> Iterator[None]:
    """Hold a run while it is trained; PostgreSQL lets go of it when the process dies.

    Parameters
    ----------
    engine
        A connection of its own is opened for it.
    name, target
        The model.
    run
        Which of its runs, as :func:`run_key` says.

    Raises
    ------
    ModelError
        If another process holds it.
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


def begin(
    session: Session, config: TrainConfig, stored: dict[str, Any], identity: Mapping[str, Any], *, again: bool
) -> tuple[Experiment, bool]:
    """Begin an experiment, or go on with the one of the same identity that was cut off.

    Parameters
    ----------
    session
        Written to, not committed; the model must be :func:`held`.
    config
        What is trained.
    stored
        What the experiment keeps as its config.
    identity
        Name, target, config_sha256, seed and split_id, as ``registry.model_store.find_experiment`` takes them.
    again
        Begin a new version even if one was cut off.

    Returns
    -------
    tuple
        The experiment, and whether it had begun before. One that other code began is not gone on with.
    """
    # The lock is ours: what is still "running" of this run belonged to a process that died.
    session.execute(
        update(Experiment)
        .where(
            *(getattr(Experiment, column) == value for column, value in identity.items()),
            Experiment.status == "running",
        )
        .values(status="interrupted", finished_at=func.clock_timestamp())
    )
    cut_off = None if again else find_experiment(session, **identity, status="interrupted")
    if cut_off is not None and cut_off.code_version == code_version():
        cut_off.status, cut_off.finished_at = "running", None
        return cut_off, True
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
