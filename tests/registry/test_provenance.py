"""Tests of ingest runs, outcomes and the version of the code."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from registry.database import session_scope
from registry.errors import SourceError
from registry.models import IngestOutcome, IngestRun
from registry.provenance import (
    code_version,
    finish_run,
    record_outcome,
    standing_outcomes,
    start_run,
)

SHA = "ab" * 32


def _start(session: Session, source: str = "sample") -> IngestRun:
    return start_run(session, source=source, source_release="2024", parameters={"fcc": True})


def test_code_version_names_package_and_commit() -> None:
    package = re.escape(version("ecdreg"))
    assert re.fullmatch(rf"{package}(\+git\.[0-9a-f]{{12}}(\.dirty)?)?", code_version())


def test_a_run_from_start_to_end(engine: Engine) -> None:
    with session_scope(engine) as session:
        run = _start(session)
        record_outcome(session, run, "a", outcome="created", input_sha256=SHA)
        finish_run(session, run, "finished")
    with Session(engine) as session:
        stored = session.scalars(select(IngestRun)).one()
        assert (stored.status, stored.source_release, stored.parameters) == ("finished", "2024", {"fcc": True})
        assert stored.finished_at is not None
        assert stored.finished_at >= stored.started_at
        assert stored.code_version == code_version()


def test_second_run_of_a_source_is_refused_during_the_first(engine: Engine) -> None:
    with session_scope(engine) as session:
        run = _start(session)
    with session_scope(engine) as session, pytest.raises(SourceError, match="'sample' is being ingested"):
        _start(session)
    with session_scope(engine) as session:
        other = _start(session, "mp")
        finish_run(session, other)
        # By its id, like a job that has closed its session.
        finish_run(session, run.id, "interrupted")
    with session_scope(engine) as session:
        assert session.get_one(IngestRun, run.id).status == "interrupted"
        finish_run(session, _start(session))


def test_run_of_a_killed_process_becomes_interrupted(engine: Engine) -> None:
    with session_scope(engine) as session:
        # A killed process leaves the row, but not the lock.
        killed = IngestRun(source="sample", parameters={}, code_version="1")
        other = IngestRun(source="mp", parameters={}, code_version="1")
        session.add_all([killed, other])
    with session_scope(engine) as session:
        finish_run(session, _start(session))
    with Session(engine) as session:
        killed = session.get_one(IngestRun, killed.id)
        assert killed.status == "interrupted"
        assert killed.finished_at is not None
        assert session.get_one(IngestRun, other.id).status == "running"


def test_the_source_stays_locked_over_commits_and_connections(engine: Engine) -> None:
    with session_scope(engine) as session:
        run = _start(session)
    engine.pool.dispose()
    with session_scope(engine) as session, pytest.raises(SourceError):
        _start(session)
    with session_scope(engine) as session:
        finish_run(session, run)


def test_standing_outcome_is_the_latest_change(engine: Engine) -> None:
    with session_scope(engine) as session:
        for outcomes in (
            {"a": ("created", None), "b": ("deferred", "no density yet"), "c": ("rejected", "not fcc")},
            {"a": ("unchanged", None), "b": ("created", None)},
            {"a": ("unchanged", None), "c": ("unchanged", None)},
        ):
            run = _start(session)
            for ident, (outcome, reason) in outcomes.items():
                record_outcome(session, run, ident, outcome=outcome, reason=reason, input_sha256=SHA)
            finish_run(session, run)
        run = _start(session, "mp")
        record_outcome(session, run, "a", outcome="rejected", reason="another source's")
        finish_run(session, run)
        standing = standing_outcomes(session, "sample")
        assert {i: (o.outcome, o.reason) for i, o in standing.items()} == {
            "a": ("created", None),
            "b": ("created", None),
            "c": ("rejected", "not fcc"),
        }
        assert standing["a"].input_sha256 == SHA
        assert standing_outcomes(session, "nothing") == {}


def test_second_outcome_of_a_crystal_replaces_the_first(engine: Engine) -> None:
    with session_scope(engine) as session:
        run = _start(session)
        record_outcome(session, run, "a", outcome="deferred", reason="server down")
        record_outcome(session, run, "a", outcome="created")
        row = session.scalars(select(IngestOutcome)).one()
        assert (row.outcome, row.reason) == ("created", None)
        finish_run(session, run)


@pytest.mark.parametrize(("outcome", "reason"), [("rejected", None), ("created", "because"), ("eaten", None)])
def test_the_database_checks_which_outcomes_have_a_reason(engine: Engine, outcome: str, reason: str | None) -> None:
    with session_scope(engine) as session:
        run = _start(session)
    try:
        with session_scope(engine) as session, pytest.raises(IntegrityError), session.begin_nested():
            record_outcome(session, run, "a", outcome=outcome, reason=reason)
    finally:
        with session_scope(engine) as session:
            finish_run(session, run, "failed")
