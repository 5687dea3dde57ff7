"""Ingestion: crystals of a source into the registry, and the preview of downloads from the Materials Project."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ecdreg.database import database_exists
from ecdreg.notes import Notes
from ingest.pipeline import OUTCOMES, IngestInterruptedError, IngestOptions, IngestReport
from ingest.pipeline import ingest as run_pipeline
from ingest.preflight import free_bytes, required_bytes
from ingest.sources import CrystalSource, open_source
from ingest.sources.base import DownloadEstimate
from ingest.sources.mp.lock_file import lock_file_of_run, read_lock_file, write_lock_file
from ingest.sources.mp.source import NAME as MATERIALS_PROJECT
from ingest.sources.mp.source import MpSelection, MpSource, read_ids
from registry.database import connect, session_scope
from registry.errors import ConfigurationError
from registry.files.grids import GridStore
from registry.files.object_cache import ObjectCache
from registry.jobs.progress import Progress, Silent
from registry.provenance import StandingOutcome, standing_outcomes
from registry.settings import Settings

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection
    from ingest.dry_run import DryRunReport

__all__ = [
    "IngestInterruptedError",
    "IngestPlan",
    "IngestPreview",
    "IngestReport",
    "IngestResult",
    "ingest",
    "plan_ingest",
    "preview_ingest",
    "report_dict",
    "run_ingest",
]

_log = logging.getLogger("ecdreg")


@dataclass(frozen=True)
class IngestPlan:
    """An ingest with checked options."""

    source: CrystalSource
    options: IngestOptions
    lock: Path | None = None
    """Lock file of the Materials Project to write after the run."""
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class IngestResult:
    """Result of an ingest that ran to its end."""

    report: IngestReport
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The counts of the run, as the command line prints them with ``--json``."""
        return report_dict(self.report, "finished")


@dataclass(frozen=True)
class IngestPreview:
    """Size of an ingest of the Materials Project."""

    release: str | None
    """Version of the project's database."""
    found: DryRunReport
    bytes_needed: int
    """Size of the grids that would be kept."""
    bytes_free: int | None
    """Free bytes of the file system of the grids; None where it is not one of this machine."""
    grids_url: str


def plan_ingest(
    settings: Settings,
    source: str = MATERIALS_PROJECT,
    *,
    fcc: bool = False,
    assume_fcc: bool = False,
    recipes: Sequence[str] = ("metric",),
    texts: str = "source",
    name: str | None = None,
    level_of_theory: str | None = None,
    derive_deformation: bool = False,
    slim: bool = False,
    refresh: bool = False,
    workers: int | None = None,
    limit: int | None = None,
    spacegroups: Sequence[int] = (),
    elements: Sequence[str] = (),
    ids: Path | None = None,
    unstable: bool = False,
    densities: bool = True,
    lock: Path | None = None,
    progress: Progress | None = None,
) -> IngestPlan:
    """Check the options of an ingest and open its source; no database is needed.

    Parameters
    ----------
    settings
        Folders of the registry.
    source
        ``mp``, another name of a source, or a dataset folder: a path with a ``/``.
    fcc
        Keep crystals of an F-centred cubic space group, reject the others.
    assume_fcc
        With ``fcc``: keep crystals without a structure, too.
    recipes
        Image recipes of the slices to make.
    texts
        ``source``, ``compute`` or ``none``.
    name
        Name of a folder's crystals in the registry; None: that of the folder.
    level_of_theory
        Level of theory of properties and densities that do not state theirs.
    derive_deformation
        Subtract free atoms from total densities where the source has no deformation density.
    slim
        Keep only the densities that the recipes need, on at most 60 points an axis.
    refresh
        Read every crystal again, whether or not it has changed.
    workers
        Processes; None: one for each core; 0: this one alone.
    limit
        Only the first so many crystals.
    spacegroups, elements, unstable
        Of the Materials Project: materials of these space groups, with all of these elements, above the convex hull.
    ids
        Of the Materials Project: file with the ids of the materials.
    densities
        Of the Materials Project: whether densities are downloaded; without them no slices are made.
    lock
        Of the Materials Project: lock file. An existing file names the materials and densities; a missing one is
        written after the run.
    progress
        Receives requests to the Materials Project, and notes.

    Raises
    ------
    ConfigurationError, UnknownNameError
        If an option cannot be used, or has no effect on the source.
    SourceError
        If the source cannot be read.
    """
    options = IngestOptions(
        fcc=fcc,
        assume_fcc=assume_fcc,
        recipes=tuple(recipes) if densities else (),
        texts=texts,
        level_of_theory=level_of_theory,
        derive_deformation=derive_deformation,
        slim=slim,
        refresh=refresh,
        limit=limit,
        workers=workers,
    )
    options.fingerprint()  # raises for an unknown recipe
    notes = Notes(progress)
    if source != MATERIALS_PROJECT or name is not None:
        if source != MATERIALS_PROJECT:
            given: dict[str, object] = {
                "--spacegroup": spacegroups,
                "--elements": elements,
                "--ids": ids,
                "--lock": lock,
            }
            given |= {"--unstable": unstable, "--no-density": not densities}
            for option, value in given.items():
                if value:
                    _refuse(option, source)
        return IngestPlan(open_source(source, name=name), options)
    existing = read_lock_file(lock) if lock is not None and lock.exists() else None
    if lock is not None and limit is not None:
        raise ConfigurationError("--lock covers all materials; leave out --limit")
    if lock is not None and not densities:
        raise ConfigurationError("--lock covers densities; leave out --no-density")
    if existing is not None and (spacegroups or elements or ids or unstable):
        # The command that wrote the file may be repeated unchanged.
        notes.add(f"{lock} names the materials; --spacegroup, --elements, --ids and --unstable have no effect")
        spacegroups, elements, ids, unstable = (), (), None, False
    selection = MpSelection(
        fcc=fcc,
        spacegroups=tuple(spacegroups),
        elements=tuple(elements),
        ids=tuple(existing.materials) if existing is not None else None if ids is None else read_ids(ids),
        unstable=unstable,
        densities=densities,
        texts=texts == "source",
        limit=limit,
    )
    materials = MpSource(
        selection,
        folder=settings.home / MATERIALS_PROJECT,
        cache=ObjectCache(GridStore(settings.grids_url)),
        refresh=refresh,
        lock=existing,
        notify=(progress or Silent()).message,
    )
    return IngestPlan(materials, options, lock if existing is None else None, notes.lines)


def ingest(
    registry: RegistryConnection, source: str = MATERIALS_PROJECT, *, progress: Progress | None = None, **options: Any
) -> IngestResult:
    """Bring the crystals of a source into the registry.

    Crystals that have not changed since the last run are left alone, and an interrupted run is continued. Crystals
    that could not be ingested are recorded with the reason, in ``v_ingest_outcomes``.

    Parameters
    ----------
    registry
        An open registry.
    source
        ``mp``, another name of a source, or a dataset folder: a path with a ``/``.
    progress
        Receives crystals and notes.
    **options
        Options of :func:`plan_ingest`, as ``fcc=True``.

    Raises
    ------
    ConfigurationError, UnknownNameError, SourceError, IngestInterruptedError
        As :func:`plan_ingest` and :func:`run_ingest`.
    """
    return run_ingest(registry, plan_ingest(registry.settings, source, progress=progress, **options), progress=progress)


def run_ingest(registry: RegistryConnection, plan: IngestPlan, *, progress: Progress | None = None) -> IngestResult:
    """Run an ingest with checked options.

    Parameters
    ----------
    registry
        An open registry; committed to after each batch of crystals.
    plan
        Result of :func:`plan_ingest`.
    progress
        Receives crystals and notes.

    Raises
    ------
    ConfigurationError, SourceError, IngestInterruptedError
        As :func:`ingest.pipeline.ingest`.
    """
    _log.info("ingesting %s", plan.source.name)
    notes = Notes(progress)
    report = run_pipeline(
        registry.engine,
        plan.source,
        plan.options,
        grids=GridStore(registry.settings.grids_url),
        progress=progress or Silent(),
    )
    warnings = []
    if plan.lock is not None:
        waiting = report.counts["deferred"] + report.retried
        if waiting:
            warnings.append(
                f"{plan.lock} is not written: {waiting} materials are not complete yet; run the same command again"
            )
        else:
            with session_scope(registry.engine) as session:
                lock = lock_file_of_run(session, plan.source.name, report.run_id, release=plan.source.release)
            write_lock_file(plan.lock, lock)
            notes.add(f"{plan.lock} holds {len(lock.materials)} materials")
    return IngestResult(report, plan.notes + notes.lines, tuple(warnings))


def preview_ingest(settings: Settings, plan: IngestPlan, *, progress: Progress | None = None) -> IngestPreview:
    """List the downloads of an ingest of the Materials Project; nothing is written.

    Parameters
    ----------
    settings
        Folders and database of the registry; no database is made.
    plan
        Result of :func:`plan_ingest`.
    progress
        Receives the requests.

    Raises
    ------
    ConfigurationError
        If the plan is of another source.
    SourceError
        If the service does not answer.
    """
    from ingest.dry_run import dry_run

    if not isinstance(plan.source, MpSource):
        _refuse("--dry-run", plan.source.name)
    grids = GridStore(settings.grids_url)
    found = dry_run(plan.source, plan.options, _standing(settings, plan.source.name), progress=progress)
    download = DownloadEstimate(found.objects, found.cached, found.bytes)
    return IngestPreview(
        plan.source.release, found, required_bytes(download, plan.options), free_bytes(grids), grids.url
    )


def report_dict(report: IngestReport, status: str) -> dict[str, Any]:
    """The counts of a run as JSON values.

    Parameters
    ----------
    report
        Counts and reasons.
    status
        ``finished`` or ``interrupted``.
    """
    return {
        "run_id": report.run_id,
        "source": report.source,
        "status": status,
        "total": report.total,
        "done": report.done,
        "in_registry": report.in_registry,
        "outcomes": {outcome: report.counts[outcome] for outcome in OUTCOMES},
        "standing": dict(report.standing),
        "reasons": [
            {"outcome": outcome, "reason": reason, "crystals": n}
            for (outcome, reason), n in report.reasons.most_common()
        ],
        "seconds": round(report.seconds, 3),
    }


def _refuse(option: str, source: str) -> NoReturn:
    raise ConfigurationError(f"{option} is for the source {MATERIALS_PROJECT}, not for {source!r}; leave it out")


def _standing(settings: Settings, source: str) -> dict[str, StandingOutcome]:
    """Outcomes of the materials of a source so far."""
    if not database_exists(settings):
        return {}
    engine = connect(settings)
    try:
        with session_scope(engine) as session:
            return standing_outcomes(session, source)
    finally:
        engine.dispose()
