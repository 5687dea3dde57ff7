r"""``ecdreg ingest``: crystals with their properties, densities, slices and texts into the registry."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.connections import open_registry, settings
from cli.options.arguments import JsonOption, LimitOption
from ecdreg.ingestion import (
    IngestInterruptedError,
    IngestPreview,
    IngestReport,
    plan_ingest,
    preview_ingest,
    report_dict,
    run_ingest,
)

__all__ = ["ingest"]

SOURCE_HELP = "mp, sample, or a dataset folder: a path with a '/', as data/ or ./mine."
MEANING = {
    "created": "new in the registry",
    "updated": "has new data",
    "unchanged": "has no new data",
    "partial": "in the registry, but some of its data could not be used",
    "deferred": "could not be ingested now; the next run tries again",
    "rejected": "not in the registry",
}
_MAX_REASONS = 8
_INTERRUPTED = 130


def ingest(
    source: Annotated[str, typer.Option("--source", metavar="NAME|DIR/", help=SOURCE_HELP)] = "mp",
    fcc: Annotated[
        bool, typer.Option("--fcc", help="Keep crystals of an F-centred cubic space group, reject the others.")
    ] = False,
    assume_fcc: Annotated[
        bool, typer.Option("--assume-fcc", help="With --fcc: keep crystals without a structure, too.")
    ] = False,
    recipe: Annotated[
        list[str] | None,
        typer.Option("--recipe", metavar="NAME", help="Slice to make; may be given more than once. [default: metric]"),
    ] = None,
    texts: Annotated[
        str,
        typer.Option(
            "--texts",
            metavar="source|compute|none",
            help="Take the texts of the source and compute missing ones; compute all, in 2 to 6 s a crystal; none.",
        ),
    ] = "source",
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of a folder's crystals in the registry; by default the folder's."),
    ] = None,
    level_of_theory: Annotated[
        str | None,
        typer.Option(
            "--level-of-theory", metavar="NAME", help="Of properties and densities that do not state theirs, as GGA."
        ),
    ] = None,
    derive_deformation: Annotated[
        bool,
        typer.Option(
            "--derive-deformation",
            help="Subtract free atoms from total densities that lack a deformation density; mp: always done.",
        ),
    ] = False,
    slim: Annotated[
        bool,
        typer.Option(
            "--slim",
            help="Keep the densities that the recipes need, reduced to 60 points an axis; not in the shared cache. "
            "Slices are made before that.",
        ),
    ] = False,
    refresh: Annotated[
        bool,
        typer.Option(
            "--refresh", help="Read every crystal again; mp: check whether objects in the cache are still the same."
        ),
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Worker processes; by default one for each core, 0 for none.")
    ] = None,
    limit: LimitOption = None,
    spacegroup: Annotated[
        list[int] | None,
        typer.Option("--spacegroup", metavar="N", help="mp: materials of this space group; may be repeated."),
    ] = None,
    elements: Annotated[
        str | None, typer.Option("--elements", metavar="A,B", help="mp: materials that contain all of these elements.")
    ] = None,
    ids: Annotated[
        Path | None, typer.Option("--ids", metavar="FILE", help="mp: exactly the materials with ids in this file.")
    ] = None,
    unstable: Annotated[
        bool, typer.Option("--unstable", help="mp: materials above the convex hull too, not only stable ones.")
    ] = False,
    no_density: Annotated[
        bool, typer.Option("--no-density", help="mp: no densities, so no slices; structures, properties and texts.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="mp: print what would be downloaded and how much; write nothing.")
    ] = False,
    lock: Annotated[
        Path | None,
        typer.Option(
            "--lock",
            metavar="FILE",
            help="mp: record the materials and densities in this file; an existing file selects exactly those.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Bring crystals into the registry.

    Crystals that have not changed since the last run are left alone, and an interrupted run is continued. Crystals
    that could not be ingested are recorded with the reason, in v_ingest_outcomes.

    \b
    Examples:
      ecdreg ingest --fcc
      ecdreg ingest --fcc --dry-run
      ecdreg ingest --fcc --elements Na,Cl --unstable
      ecdreg ingest --fcc --slim
      ecdreg ingest --fcc --lock mp.lock.json
      ecdreg ingest --fcc --source sample
      ecdreg ingest --source ./mydata/ --name mine --level-of-theory PBEsol
      ecdreg ingest --source ./mydata/ --recipe metric --recipe paper-total
      ecdreg ingest --source ./chgcars/ --level-of-theory GGA --derive-deformation
      ecdreg ingest --fcc --source sample --texts compute
    """
    with output.progress() as progress:
        plan = plan_ingest(
            settings(),
            source,
            fcc=fcc,
            assume_fcc=assume_fcc,
            recipes=recipe or ("metric",),
            texts="source" if texts == "download" else texts,
            name=name,
            level_of_theory=level_of_theory,
            derive_deformation=derive_deformation,
            slim=slim,
            refresh=refresh,
            workers=workers,
            limit=limit,
            spacegroups=spacegroup or (),
            elements=(elements or "").replace(",", " ").split(),
            ids=ids,
            unstable=unstable,
            densities=not no_density,
            lock=lock,
            progress=progress,
        )
        found = preview_ingest(settings(), plan, progress=progress) if dry_run else None
    if found is not None:
        _show_preview(found, json=json)
        return
    try:
        with output.progress() as progress:
            result = run_ingest(open_registry(), plan, progress=progress)
    except IngestInterruptedError as stop:
        _show(stop.report, json=json, status="interrupted")
        output.note(str(stop))
        raise typer.Exit(_INTERRUPTED) from None
    _show(result.report, json=json, status="finished")
    for warning in result.warnings:
        output.warn(warning)
    if not result.report.in_registry:
        output.error(f"nothing of {result.report.source} is in the registry; the reasons are above")
        raise typer.Exit(1)
    if not json:
        output.note(_next_steps(result.report))


def _show_preview(found: IngestPreview, *, json: bool) -> None:
    one = found.found
    if json:
        output.json(asdict(one))
        return
    rows = [
        {"what": "materials", "number": one.materials},
        {"what": "unchanged since the last run", "number": one.unchanged},
        {"what": "density objects to download", "number": one.objects},
        {"what": "in the cache already", "number": one.cached},
        {"what": "without a density", "number": one.without},
        {"what": "with the project's text", "number": one.texts},
    ]
    output.table(rows, title=f"Materials Project {found.release}: what would be ingested")
    output.line(f"{one.bytes / 1e9:.3f} GB to download")
    room = "" if found.bytes_free is None else f", which has {found.bytes_free / 1e9:.1f} GB free"
    output.line(f"{found.bytes_needed / 1e9:.3f} GB to keep in {found.grids_url}{room}")
    if found.bytes_free is not None and found.bytes_needed > found.bytes_free:
        output.warn("that does not fit; --slim keeps less, ECDREG_CACHE names another place")
    for line in one.troubles:
        output.note(line)


def _show(report: IngestReport, *, json: bool, status: str) -> None:
    if json:
        output.json(report_dict(report, status))
        return
    rows = [
        {"outcome": outcome, "crystals": report.counts[outcome], "meaning": meaning}
        for outcome, meaning in MEANING.items()
        if report.counts[outcome]
    ]
    title = f"{report.source}: {report.done} of {report.total} crystals in {report.seconds:.1f} s"
    output.table(rows, title=title) if rows else output.line(title)
    if report.reasons:
        output.line()
        common = report.reasons.most_common()
        output.table(
            [{"crystals": n, "outcome": outcome, "reason": reason} for (outcome, reason), n in common[:_MAX_REASONS]]
        )
        if len(common) > _MAX_REASONS:
            output.note(f"and {len(common) - _MAX_REASONS} other reasons")
    output.line()
    standing = [
        f"{report.standing[outcome]} {outcome}" for outcome in ("partial", "rejected") if report.standing[outcome]
    ]
    if standing:
        output.note(f"of the unchanged, {' and '.join(standing)} as before")
    if report.reasons or standing:
        output.note(
            'why, for each crystal: ecdreg db shell -c "SELECT source_id, outcome, reason FROM v_ingest_outcomes '
            f"WHERE source = '{report.source}' AND reason IS NOT NULL\""
        )


def _next_steps(report: IngestReport) -> str:
    if report.counts["deferred"]:
        return "next: run the same command again for the deferred crystals"
    return "next: `ecdreg train stacked` trains on them, `ecdreg db shell` queries v_materials"
