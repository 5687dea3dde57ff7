r"""``ecdreg ingest``: crystals with their properties, densities, slices and texts into the registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.options.common import JsonOption, LimitOption, open_engine, settings

if TYPE_CHECKING:
    from ingest.pipeline import IngestReport
    from ingest.sources import CrystalSource

__all__ = ["ingest"]

SOURCE_HELP = "mp, sample, or a dataset folder: a path with a '/', as data/ or ./mine. [default: mp]"
MEANING = {
    "created": "new in the registry",
    "updated": "something of it is new",
    "unchanged": "nothing is new",
    "partial": "in the registry, but something of it could not be used",
    "deferred": "could not be ingested just now; the next run tries again",
    "rejected": "not in the registry",
}
_SHOWN_REASONS = 8
_INTERRUPTED = 130


def ingest(
    source: Annotated[str | None, typer.Option("--source", metavar="NAME|DIR/", help=SOURCE_HELP)] = None,
    fcc: Annotated[
        bool, typer.Option("--fcc", help="Keep crystals of an F-centred cubic space group, reject the others.")
    ] = False,
    assume_fcc: Annotated[
        bool, typer.Option("--assume-fcc", help="With --fcc: keep what has no structure to tell by.")
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
            help="Take the source's texts (or: download) and compute what it lacks; compute all (2 to 6 s a crystal); "
            "none.",
        ),
    ] = "source",
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of a folder's crystals in the registry; by default the folder's."),
    ] = None,
    level_of_theory: Annotated[
        str | None,
        typer.Option(
            "--level-of-theory", metavar="LEVEL", help="Of properties and densities that do not say theirs, as GGA."
        ),
    ] = None,
    derive_deformation: Annotated[
        bool,
        typer.Option(
            "--derive-deformation",
            help="Subtract free atoms from total densities where there is no deformation density; mp: always done.",
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
            "--refresh", help="Look at every crystal again; mp: ask whether objects in the cache are still the same."
        ),
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes; by default one a core, 0 for none but this.")
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
        Path | None, typer.Option("--ids", metavar="FILE", help="mp: exactly the materials whose ids are in this file.")
    ] = None,
    unstable: Annotated[
        bool, typer.Option("--unstable", help="mp: materials above the convex hull too, not only stable ones.")
    ] = False,
    no_density: Annotated[
        bool, typer.Option("--no-density", help="mp: no densities, so no slices; structures, properties and texts.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="mp: say what would be downloaded and how much; write nothing.")
    ] = False,
    lock: Annotated[
        Path | None,
        typer.Option(
            "--lock",
            metavar="FILE",
            help="mp: write down exactly which densities these are; with a file that is there, take exactly those.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Bring crystals into the registry.

    What has not changed since the last run is left alone, what was interrupted goes on. What
    could not be ingested is recorded with its reason: see v_ingest_outcomes.

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
    from ingest.pipeline import IngestInterruptedError, IngestOptions
    from ingest.pipeline import ingest as run_ingest
    from ingest.sources import open_source
    from registry.files.grids import GridStore

    options = IngestOptions(
        fcc=fcc,
        assume_fcc=assume_fcc,
        recipes=() if no_density else tuple(recipe) if recipe else ("metric",),
        texts="source" if texts == "download" else texts,
        level_of_theory=level_of_theory,
        derive_deformation=derive_deformation,
        slim=slim,
        refresh=refresh,
        limit=limit,
        workers=workers,
    )
    options.fingerprint()  # an unknown recipe is said before the database is made
    given = {"--spacegroup": spacegroup, "--elements": elements, "--ids": ids, "--lock": lock}
    flags = {"--unstable": unstable, "--no-density": no_density, "--dry-run": dry_run}
    named = source or "mp"
    if named == "mp" and name is None:
        from cli.options import materials_project as mp

        materials = mp.materials_project(
            options,
            spacegroups=spacegroup,
            elements=elements,
            ids=ids,
            unstable=unstable,
            densities=not no_density,
            lock=lock,
        )
        if dry_run:
            mp.dry_run(materials, options, json=json)
            return
        chosen: CrystalSource = materials
    else:
        if named != "mp":
            _only_for_mp(named, [option for option, value in {**given, **flags}.items() if value])
        chosen = open_source(named, name=name)
    engine = open_engine()
    try:
        with output.progress() as progress:
            report = run_ingest(engine, chosen, options, grids=GridStore(settings().grids_url), progress=progress)
    except IngestInterruptedError as stop:
        _show(stop.report, json=json, status="interrupted")
        output.note(str(stop))
        raise typer.Exit(_INTERRUPTED) from None
    finally:
        engine.dispose()
    _show(report, json=json, status="finished")
    if named == "mp" and lock is not None:
        mp.write_lock_of(materials, report, engine, lock)
    if not report.in_registry:
        output.error(f"nothing of {chosen.name} is in the registry; the reasons are above")
        raise typer.Exit(1)
    if not json:
        output.note(_next_steps(report))


def _only_for_mp(source: str, options: list[str]) -> None:
    from registry.errors import ConfigurationError

    if options:
        raise ConfigurationError(f"{options[0]} is for the source mp, not for {source!r}; leave it out")


def _show(report: IngestReport, *, json: bool, status: str) -> None:
    if json:
        output.json(_as_json(report, status))
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
            [{"crystals": n, "outcome": outcome, "reason": reason} for (outcome, reason), n in common[:_SHOWN_REASONS]]
        )
        if len(common) > _SHOWN_REASONS:
            output.note(f"and {len(common) - _SHOWN_REASONS} other reasons")
    output.line()
    stands = [
        f"{report.standing[outcome]} {outcome}" for outcome in ("partial", "rejected") if report.standing[outcome]
    ]
    if stands:
        output.note(f"of the unchanged, {' and '.join(stands)} as before")
    if report.reasons or stands:
        output.note(
            'why, for each crystal: ecdreg db shell -c "SELECT source_id, outcome, reason FROM v_ingest_outcomes '
            f"WHERE source = '{report.source}' AND reason IS NOT NULL\""
        )


def _as_json(report: IngestReport, status: str) -> dict[str, Any]:
    return {
        "run_id": report.run_id,
        "source": report.source,
        "status": status,
        "total": report.total,
        "done": report.done,
        "in_registry": report.in_registry,
        "outcomes": {outcome: report.counts[outcome] for outcome in MEANING},
        "standing": dict(report.standing),
        "reasons": [
            {"outcome": outcome, "reason": reason, "crystals": n}
            for (outcome, reason), n in report.reasons.most_common()
        ],
        "seconds": round(report.seconds, 3),
    }


def _next_steps(report: IngestReport) -> str:
    if report.counts["deferred"]:
        return "next: run the same command again, it tries what was deferred"
    return "next: `ecdreg train stacked` learns from them, `ecdreg db shell` asks v_materials about them"
