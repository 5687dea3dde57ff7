"""Ingest runs, the outcome of each crystal in them, and the version of the code."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from registry.errors import SourceError
from registry.models import IngestOutcome, IngestRun

__all__ = [
    "StandingOutcome",
    "code_version",
    "finish_run",
    "record_outcome",
    "release",
    "standing_outcomes",
    "start_run",
]

# First key of the two-key advisory locks of PostgreSQL; it distinguishes them from locks of other programs.
_LOCK_CLASS = 0x656364
# Connections that hold the lock of a source, by database and source.
_held: dict[tuple[str, str], Connection] = {}


@dataclass(frozen=True)
class StandingOutcome:
    """The last outcome of a crystal of a source that is not ``unchanged``."""

    outcome: str
    reason: str | None
    input_sha256: str | None
    revision_id: int | None


@cache
def code_version() -> str:
    """Version of this code: that of the package, and the git commit if it runs from a checkout.

    Returns
    -------
    str
        For example ``0.1.0`` or ``0.1.0+git.5e64d82``, with the suffix ``.dirty`` if tracked files differ
        from the commit.
    """
    try:
        package = version("ecdreg")
    except PackageNotFoundError:
        package = "unknown"
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return package
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        dirty = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        # git is missing, or refuses the checkout of another user; the version of the package is still correct.
        return package
    return f"{package}+git.{commit}{'.dirty' if dirty else ''}"


def start_run(session: Session, *, source: str, source_release: str | None, parameters: Mapping[str, Any]) -> IngestRun:
    """Start a run and lock its source until :func:`finish_run`.

    A separate connection holds the advisory lock of the source, so that the caller may commit and return connections
    to the pool between crystals. PostgreSQL releases the lock when the process ends. If an earlier run of the source
    is still ``running``, its process has ended: the run is marked ``interrupted``.

    Parameters
    ----------
    source
        Name of the source.
    source_release
        Version of the data, as the source names it.
    parameters
        Options of the run; JSON values.

    Raises
    ------
    SourceError
        If another run of this source is in progress.
    """
    _lock(session, source)
    session.execute(
        update(IngestRun)
        .where(IngestRun.source == source, IngestRun.status == "running")
        .values(status="interrupted", finished_at=func.clock_timestamp())
    )
    run = IngestRun(
        source=source, source_release=source_release, parameters=dict(parameters), code_version=code_version()
    )
    session.add(run)
    session.flush()
    return run


def record_outcome(
    session: Session,
    run: IngestRun | int,
    source_id: str,
    *,
    outcome: str,
    reason: str | None = None,
    input_sha256: str | None = None,
    revision_id: int | None = None,
) -> None:
    """Write the outcome of one crystal in a run; it replaces an earlier outcome of the same crystal.

    Parameters
    ----------
    run
        The run, or its id.
    source_id
        Id of the crystal in its source.
    outcome
        created, updated, unchanged, partial, deferred or rejected.
    reason
        Reason of the outcomes partial, deferred and rejected.
    input_sha256
        Checksum of all data of the source and all options that affect the result.
    revision_id
        The written or existing revision.

    Raises
    ------
    sqlalchemy.exc.IntegrityError
        If an outcome that needs a reason has none, or another outcome has one.
    """
    row = {
        "run_id": run if isinstance(run, int) else run.id,
        "source_id": source_id,
        "outcome": outcome,
        "reason": reason,
        "input_sha256": input_sha256,
        "revision_id": revision_id,
    }
    upsert = insert(IngestOutcome).values(**row, recorded_at=func.clock_timestamp())
    changed = ("outcome", "reason", "input_sha256", "revision_id", "recorded_at")
    session.execute(
        upsert.on_conflict_do_update(
            index_elements=[IngestOutcome.run_id, IngestOutcome.source_id],
            set_={column: upsert.excluded[column] for column in changed},
        )
    )


def finish_run(session: Session, run: IngestRun | int, status: str = "finished") -> None:
    """End a run and release the lock of its source.

    Parameters
    ----------
    run
        The run, or its id.
    status
        finished, interrupted or failed.
    """
    run_id = run if isinstance(run, int) else run.id
    source = session.scalars(
        update(IngestRun)
        .where(IngestRun.id == run_id)
        .values(status=status, finished_at=func.clock_timestamp())
        .returning(IngestRun.source)
    ).one()
    _unlock(session, source)


def standing_outcomes(session: Session, source: str) -> dict[str, StandingOutcome]:
    """The last outcome of every crystal of a source that is not ``unchanged``, by id; one query for all crystals."""
    rows = session.execute(
        text(
            "SELECT source_id, outcome, reason, input_sha256, revision_id FROM v_ingest_outcomes WHERE source = :source"
        ),
        {"source": source},
    )
    return {row.source_id: StandingOutcome(row.outcome, row.reason, row.input_sha256, row.revision_id) for row in rows}


def _lock_key(session: Session, source: str) -> tuple[str, str]:
    return session.get_bind().engine.url.render_as_string(), source


def _lock(session: Session, source: str) -> None:
    key = _lock_key(session, source)
    connection = session.get_bind().engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    # Detached, because a small pool would otherwise wait for this connection without limit.
    connection.detach()
    if connection.scalar(select(func.pg_try_advisory_lock(_LOCK_CLASS, func.hashtext(source)))):
        _held[key] = connection
        return
    connection.close()
    raise SourceError(f"source {source!r} is being ingested by another run; wait for its end, or stop it")


def _unlock(session: Session, source: str) -> None:
    # A process that did not start the run may also end it.
    if connection := _held.pop(_lock_key(session, source), None):
        release(connection, select(func.pg_advisory_unlock(_LOCK_CLASS, func.hashtext(source))))


def release(connection: Connection, unlock: Select[Any]) -> None:
    """Release a lock and close the connection that holds it.

    Closing would also release the lock, but only after the server has noticed it: until then another process could
    not take the lock.

    Parameters
    ----------
    connection
        The connection, detached from its pool.
    unlock
        The statement that releases the lock.
    """
    # A broken connection does not hold a lock.
    with suppress(DBAPIError):
        connection.execute(unlock)
    connection.close()


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=5)
    return done.stdout.strip()
