"""Ingestion of a source into the registry, with one transaction per crystal.

A run compares the checksum of each record (and of the options that change the result) with that
of the last run; an unchanged crystal costs only the checksum. The others are prepared in worker
processes (:mod:`ingest.workers`) and written here. After an interruption the written crystals stay,
and the same command continues with the others.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import islice
from types import FrameType
from typing import Any

from sqlalchemy import Engine, insert, text
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from ingest.preflight import check_free_space
from ingest.preparation.checksums import input_sha256, needs_description
from ingest.preparation.options import IngestOptions
from ingest.preparation.outcome import Prepared
from ingest.sources.base import CrystalSource, DownloadingSource, SourceRecord
from ingest.workers import prepare_all
from registry.crystals import write_crystal
from registry.database import session_scope
from registry.errors import InputError
from registry.files.grids import GridStore
from registry.jobs.progress import Progress, Silent
from registry.models import IngestOutcome
from registry.provenance import StandingOutcome, finish_run, record_outcome, standing_outcomes, start_run

__all__ = ["OUTCOMES", "IngestInterruptedError", "IngestOptions", "IngestReport", "ingest"]

OUTCOMES = ("created", "updated", "unchanged", "partial", "deferred", "rejected")
"""Outcomes of a crystal, in the order in which they are reported."""

_log = logging.getLogger("ingest")


@dataclass
class IngestReport:
    """Numbers of crystals by outcome of a run."""

    run_id: int
    source: str
    total: int
    """Number of records of the run."""
    counts: Counter[str] = field(default_factory=Counter)
    """Crystals by outcome; see :data:`OUTCOMES`."""
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Crystals by outcome and reason."""
    standing: Counter[str] = field(default_factory=Counter)
    """Unchanged crystals by their outcome in an earlier run."""
    retried: int = 0
    """Partial crystals that the next run prepares again."""
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """Crystals that have an outcome in this run."""
        return self.counts.total()

    @property
    def in_registry(self) -> int:
        """Crystals of the source that are in the registry after the run, partial ones included."""
        here = sum(self.counts[outcome] for outcome in ("created", "updated", "partial"))
        return here + self.counts["unchanged"] - self.standing["rejected"]

    def add(self, outcome: str, reason: str | None) -> None:
        """Count one crystal."""
        self.counts[outcome] += 1
        if reason is not None:
            self.reasons[outcome, reason] += 1


class IngestInterruptedError(KeyboardInterrupt):
    """A run was stopped by Ctrl-C or SIGTERM; the registry is consistent.

    A ``KeyboardInterrupt``, so that a loop that calls :func:`ingest` stops as well.
    """

    def __init__(self, report: IngestReport) -> None:
        super().__init__(f"interrupted after {report.done} of {report.total}; run the same command to continue")
        self.report = report


def ingest(
    engine: Engine,
    source: CrystalSource,
    options: IngestOptions | None = None,
    *,
    grids: GridStore,
    progress: Progress | None = None,
) -> IngestReport:
    """Ingest the crystals of a source into the registry.

    Parameters
    ----------
    engine
        Engine of the registry's database, with an up-to-date schema.
    source
        Source of the crystals.
    options
        Options of the ingest; default: ``IngestOptions()``.
    grids
        Store of the density grids.
    progress
        Receives the progress.

    Returns
    -------
    IngestReport
        Numbers by outcome, which are also recorded: ``v_ingest_runs``, ``v_ingest_outcomes``.

    Raises
    ------
    ConfigurationError
        If the options name a recipe that does not exist, or the grid store cannot be written to or
        has too little space for the download.
    SourceError
        If another run of this source is in progress.
    IngestInterruptedError
        After Ctrl-C or SIGTERM; the run is marked ``interrupted``.
    sqlalchemy.exc.SQLAlchemyError
        If the database stops answering; the run is marked ``failed`` where that is still possible.
    """
    options = options or IngestOptions()
    progress = progress or Silent()
    began = time.monotonic()
    fingerprint = options.fingerprint()
    records = list(islice(source.records(), options.limit))
    for remark in source.remarks:
        progress.message(remark)
    with session_scope(engine) as session:
        run_id = start_run(
            session, source=source.name, source_release=source.release, parameters=options.parameters()
        ).id
    report = IngestReport(run_id, source.name, len(records))
    _log.info("run %d ingests %d records of %s", run_id, len(records), source.name)
    status = "failed"
    try:
        with _stop_signals() as stopped:
            run = _Run(engine, grids, options, report, progress)
            progress.begin(f"ingest {source.name}", len(records))
            try:
                run.run(source, records, fingerprint, stopped)
            finally:
                progress.end()
            status = "interrupted" if stopped() else "finished"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        # The error in progress is raised, not a second one from a database that no longer answers.
        with suppress(SQLAlchemyError) if status == "failed" else nullcontext(), session_scope(engine) as session:
            finish_run(session, run_id, status)
    report.seconds = time.monotonic() - began
    if status == "interrupted":
        raise IngestInterruptedError(report)
    return report


class _Stopped:
    """Flag that the run is to stop."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __call__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """Request the stop."""
        self._event.set()


@dataclass
class _Run:
    """One run in progress."""

    engine: Engine
    grids: GridStore
    options: IngestOptions
    report: IngestReport
    progress: Progress
    checksums: dict[str, str] = field(default_factory=dict)
    standing: dict[str, StandingOutcome] = field(default_factory=dict)
    last_checksums: dict[str, str] = field(default_factory=dict)

    def run(self, source: CrystalSource, records: list[SourceRecord], fingerprint: str, stopped: _Stopped) -> None:
        with session_scope(self.engine) as session:
            self.standing = standing_outcomes(session, self.report.source)
            self.last_checksums = _last_checksums(session, self.report.source)
        changed = self._changed(records, fingerprint, stopped)
        if isinstance(source, DownloadingSource):
            check_free_space(source.estimate_download(changed), self.options, grids=self.grids, progress=self.progress)
        if texts := sum(needs_description(record, self.options) for record in changed):
            self.progress.message(f"{texts} texts to compute with robocrystallographer: 2 to 6 s each on a core")
        for record, prepared in prepare_all(changed, self.options, stopped=stopped):
            self._write(record, prepared)

    def _changed(self, records: list[SourceRecord], fingerprint: str, stopped: _Stopped) -> list[SourceRecord]:
        """Records that differ from those of the last run; the outcomes of all others are recorded."""
        changed: list[SourceRecord] = []
        unchanged: list[dict[str, Any]] = []
        for record in records:
            if stopped():
                return []
            try:
                checksum = input_sha256(record, self.options, fingerprint=fingerprint)
            except OSError as error:
                self._record(record, "deferred", f"{type(error).__name__}: {error}")
                continue
            self.checksums[record.source_id] = checksum
            last = self.standing.get(record.source_id)
            outdated = self.options.refresh or self.last_checksums.get(record.source_id) != checksum
            if outdated or last is None or last.outcome == "deferred":
                changed.append(record)
                continue
            unchanged.append(
                {
                    "run_id": self.report.run_id,
                    "source_id": record.source_id,
                    "outcome": "unchanged",
                    "input_sha256": checksum,
                    "revision_id": last.revision_id,
                }
            )
            self.report.counts["unchanged"] += 1
            self.report.standing[last.outcome] += 1
        if unchanged:
            with session_scope(self.engine) as session:
                session.execute(insert(IngestOutcome), unchanged)
            self.progress.advance(len(unchanged), "unchanged")
        return changed

    def _write(self, record: SourceRecord, prepared: Prepared) -> None:
        if prepared.data is None:
            if prepared.rejected is not None:
                self._record(record, "rejected", prepared.rejected)
            else:
                self._record(record, "deferred", prepared.deferred)
            return
        reason = "; ".join(prepared.problems) or None
        if prepared.retry:
            # Without a checksum the next run prepares the crystal again.
            self.checksums.pop(record.source_id, None)
            self.report.retried += 1
        try:
            with session_scope(self.engine) as session:
                written = write_crystal(session, prepared.data, run_id=self.report.run_id, grids=self.grids)
                outcome = "partial" if reason is not None else self._outcome(record, written.outcome)
                self._record_in(session, record, outcome, reason, written.revision_id)
        except InputError as error:
            self._record(record, "rejected", str(error))
        except (DataError, IntegrityError) as error:
            # The database refuses this crystal only; its transaction contained nothing else.
            first = str(error.orig).strip().splitlines()[0]
            self._record(record, "deferred", f"refused by the database: {first}")
        else:
            self._count(record, outcome, reason)

    def _outcome(self, record: SourceRecord, written: str) -> str:
        last = self.standing.get(record.source_id)
        # The content is unchanged, but its earlier problem no longer exists.
        if written == "unchanged" and last is not None and last.outcome in ("partial", "deferred", "rejected"):
            return "updated"
        return written

    def _record(self, record: SourceRecord, outcome: str, reason: str | None) -> None:
        with session_scope(self.engine) as session:
            self._record_in(session, record, outcome, reason, None)
        self._count(record, outcome, reason)

    def _record_in(
        self, session: Session, record: SourceRecord, outcome: str, reason: str | None, revision_id: int | None
    ) -> None:
        record_outcome(
            session,
            self.report.run_id,
            record.source_id,
            outcome=outcome,
            reason=reason,
            input_sha256=self.checksums.get(record.source_id),
            revision_id=revision_id,
        )

    def _count(self, record: SourceRecord, outcome: str, reason: str | None) -> None:
        if outcome == "deferred":
            _log.debug("%s %s is deferred: %s", self.report.source, record.source_id, reason)
        self.report.add(outcome, reason)
        self.progress.advance(1, record.source_id)


def _last_checksums(session: Session, source: str) -> dict[str, str]:
    """Checksum of each crystal in the last run; crystals that are to be prepared again have none.

    It may differ from that of the standing outcome: other options may have changed nothing.
    """
    # As SQL: DISTINCT ON has different forms in SQLAlchemy 2.0 and 2.1.
    rows = session.execute(
        text(
            "SELECT DISTINCT ON (o.source_id) o.source_id, o.input_sha256"
            " FROM ingest_outcomes o JOIN ingest_runs r ON r.id = o.run_id"
            " WHERE r.source = :source ORDER BY o.source_id, o.run_id DESC"
        ),
        {"source": source},
    )
    return {row.source_id: row.input_sha256 for row in rows if row.input_sha256 is not None}


@contextmanager
def _stop_signals() -> Iterator[_Stopped]:
    """Convert Ctrl-C and SIGTERM to a stop flag, so that no transaction is interrupted.

    A second Ctrl-C raises ``KeyboardInterrupt`` at once.
    """
    stopped = _Stopped()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(number: int, _frame: FrameType | None) -> None:
        if stopped() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
