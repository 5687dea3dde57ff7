"""Runs of ingestion and what became of each crystal in them."""

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

# First key of PostgreSQL's two-key advisory locks; tells ours from those of other programs.
_LOCK_CLASS = 0x656364
# Connections whose locks hold a source, by database and source.
_held: dict[tuple[str, str], Connection] = {}


@dataclass(frozen=True)
class StandingOutcome:
    """What last became of a crystal of a source, unless that was "nothing changed"."""

    outcome: str
    reason: str | None
    input_sha256: str | None
    revision_id: int | None


@cache
def code_version() -> str:
    """Version of this code: the package's, and the git commit where it runs from a checkout.

    Returns
    -------
    str
        As ``0.1.0`` or ``0.1.0+git.5e64d82``, with ``.dirty`` behind where tracked files differ
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
        # git is missing, or refuses a checkout of another user's: the package's version is still true.
        return package
    return f"{package}+git.{commit}{'.dirty' if dirty else ''}"


def start_run(session: Session, *, source: str, source_release: str | None, parameters: Mapping[str, Any]) -> IngestRun:
    """Begin a run and hold its source until :func:`finish_run`.

    The source is held by an advisory lock on a connection of its own, so that the caller may
    commit and return connections to the pool between crystals; PostgreSQL lets go of it when the
    process dies. A run of the same source that is still ``running`` then is one whose process
    died: it is marked ``interrupted``.

    Parameters
    ----------
    source
        Name of the source.
    source_release
        The source's own version of its data.
    parameters
        Options of the run; JSON values.

    Raises
    ------
    SourceError
        If another run of this source is under way.
    """
    _hold(session, source)
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
    """Write what became of one crystal in a run; a second word on the same crystal replaces the first.

    Parameters
    ----------
    run
        The run, or its id.
    source_id
        The crystal's id in its source.
    outcome
        created, updated, unchanged, partial, deferred or rejected.
    reason
        Why it is partial, deferred or rejected.
    input_sha256
        Of everything that the source offered and every option that shapes the result.
    revision_id
        The revision that was written or found.

    Raises
    ------
    sqlalchemy.exc.IntegrityError
        If there is a reason where none belongs, or none where one does.
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
    """End a run and let go of its source.

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
    _let_go(session, source)


def standing_outcomes(session: Session, source: str) -> dict[str, StandingOutcome]:
    """What last became of every crystal of a source, by its id; ``unchanged`` does not count.

    One query, whatever the number of crystals.
    """
    rows = session.execute(
        text(
            "SELECT source_id, outcome, reason, input_sha256, revision_id FROM v_ingest_outcomes WHERE source = :source"
        ),
        {"source": source},
    )
    return {row.source_id: StandingOutcome(row.outcome, row.reason, row.input_sha256, row.revision_id) for row in rows}


def _holder(session: Session, source: str) -> tuple[str, str]:
    return session.get_bind().engine.url.render_as_string(), source


def _hold(session: Session, source: str) -> None:
    holder = _holder(session, source)
    connection = session.get_bind().engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    # Out of the pool, or a small pool would wait for it for ever.
    connection.detach()
    if connection.scalar(select(func.pg_try_advisory_lock(_LOCK_CLASS, func.hashtext(source)))):
        _held[holder] = connection
        return
    connection.close()
    raise SourceError(f"source {source!r} is being ingested by another run; wait for it, or stop it")


def _let_go(session: Session, source: str) -> None:
    # A run may also be closed by a process that did not start it.
    if connection := _held.pop(_holder(session, source), None):
        release(connection, select(func.pg_advisory_unlock(_LOCK_CLASS, func.hashtext(source))))


def release(connection: Connection, unlock: Select[Any]) -> None:
    """Give a lock back and close the connection that holds it.

    Closing alone would do so too, but only when the server has noticed: whoever asks right after might be refused.

    Parameters
    ----------
    connection
        Detached from its pool.
    unlock
        The statement that gives back what it holds.
    """
    # A connection that is broken holds nothing any more.
    with suppress(DBAPIError):
        connection.execute(unlock)
    connection.close()


def _git(root: Path, *arguments: str) -> str:
    # The arguments are this module's own.
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=5)
    return done.stdout.strip()
