"""What ``ecdreg ingest`` does for the source ``mp`` alone: which materials, a dry run, a lock file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import output
from cli.options.common import open_engine, settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ingest.pipeline import IngestOptions, IngestReport
    from ingest.sources.mp.source import MpSource
    from registry.provenance import StandingOutcome

__all__ = ["dry_run", "materials_project", "write_lock_of"]


def materials_project(
    options: IngestOptions,
    *,
    spacegroups: list[int] | None,
    elements: str | None,
    ids: Path | None,
    unstable: bool,
    densities: bool,
    lock: Path | None,
) -> MpSource:
    """The source that the options describe.

    Parameters
    ----------
    options
        Of the ingest.
    spacegroups, elements, ids, unstable, densities, lock
        As on the command line.

    Raises
    ------
    ConfigurationError
        If they do not fit together, a file cannot be read, or there is no key.
    """
    from ingest.sources.mp.lock import read_lock
    from ingest.sources.mp.source import NAME, MpSelection, MpSource, read_ids
    from registry.errors import ConfigurationError
    from registry.files.grids import GridStore
    from registry.files.object_cache import ObjectCache

    kept_to = read_lock(lock) if lock is not None and lock.exists() else None
    if lock is not None and options.limit is not None:
        raise ConfigurationError("--lock is about all materials; leave out --limit")
    if lock is not None and not densities:
        raise ConfigurationError("--lock is about densities; leave out --no-density")
    if kept_to is not None:
        # The command that wrote the file may be given again as it was.
        if spacegroups or elements or ids or unstable:
            output.note(f"{lock} says which materials; --spacegroup, --elements, --ids and --unstable do not count")
        spacegroups, elements, ids, unstable = None, None, None, False
    selection = MpSelection(
        fcc=options.fcc,
        spacegroups=tuple(spacegroups or ()),
        elements=tuple(word for word in (elements or "").replace(",", " ").split()),
        ids=tuple(kept_to.materials) if kept_to is not None else None if ids is None else read_ids(ids),
        unstable=unstable,
        densities=densities,
        texts=options.texts == "source",
        limit=options.limit,
    )
    chosen = settings()
    return MpSource(
        selection,
        folder=chosen.home / NAME,
        cache=ObjectCache(GridStore(chosen.grids_url)),
        refresh=options.refresh,
        lock=kept_to,
        say=output.note,
    )


def dry_run(source: MpSource, options: IngestOptions, *, json: bool) -> None:
    """Print what an ingest would download; no density is read, and nothing is written.

    Parameters
    ----------
    source
        What would be ingested.
    options
        How.
    json
        Print JSON instead of a table.
    """
    from ingest.preflight import free_bytes, room_needed
    from ingest.sources.base import Download
    from ingest.sources.mp.preview import preview
    from registry.files.grids import GridStore

    grids = GridStore(settings().grids_url)
    standing = _standing(source.name)
    with output.progress() as progress:
        found = preview(source, options, standing, progress=progress)
    if json:
        output.json(found.as_json())
        return
    needed = room_needed(Download(found.objects, found.cached, found.bytes), options)
    free = free_bytes(grids)
    rows: list[dict[str, Any]] = [
        {"what": "materials", "number": found.materials},
        {"what": "unchanged since the last run", "number": found.unchanged},
        {"what": "density objects to download", "number": found.objects},
        {"what": "in the cache already", "number": found.cached},
        {"what": "without a density", "number": found.without},
        {"what": "with the project's text", "number": found.texts},
    ]
    output.table(rows, title=f"Materials Project {source.release}: what would be ingested")
    output.line(f"{found.bytes / 1e9:.3f} GB to download")
    room = "" if free is None else f", which has {free / 1e9:.1f} GB free"
    output.line(f"{needed / 1e9:.3f} GB to keep in {grids.url}{room}")
    if free is not None and needed > free:
        output.warn("that does not fit; --slim keeps less, ECDREG_CACHE names another place")
    for line in found.troubles:
        output.note(line)


def write_lock_of(source: MpSource, report: IngestReport, engine: Engine, path: Path) -> None:
    """Write the lock file of a run, unless it kept to one; while something is deferred there is none.

    Parameters
    ----------
    source
        What was ingested.
    report
        What became of it.
    engine
        The registry's database.
    path
        Where the file goes.
    """
    from ingest.sources.mp.lock import lock_of, write_lock
    from registry.database import session_scope

    if source.lock is not None:
        return
    if report.counts["deferred"] or report.retried:
        waiting = report.counts["deferred"] + report.retried
        output.warn(f"{path} is not written: {waiting} materials are not complete yet; run the same command again")
        return
    with session_scope(engine) as session:
        lock = lock_of(session, source.name, report.run_id, release=source.release)
    write_lock(path, lock)
    output.note(f"{path} holds {len(lock.materials)} materials")


def _standing(source: str) -> dict[str, StandingOutcome]:
    """What became of the source's materials so far; a dry run makes no database to ask that."""
    from registry.database import session_scope
    from registry.provenance import standing_outcomes

    chosen = settings()
    if chosen.embedded and not (chosen.postgres_data / "PG_VERSION").exists():
        return {}
    with session_scope(open_engine()) as session:
        return standing_outcomes(session, source)
