"""``ecdreg cache``: the density cache, which registries may share."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.options.common import JsonOption, command_group, open_engine, settings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from registry.settings import Settings

__all__ = ["group"]

group = command_group("The density cache at ECDREG_CACHE, which several registries may share.")


@group.command("status")
def status(json: JsonOption = False) -> None:
    """Where the cache is, what it holds, and what of it this registry needs.

    Grids are named by their checksum, so what two registries share is there once. Objects are
    downloads whose grids are known: no registry with this cache downloads them again.

    \b
    Examples:
      ecdreg cache status
      ecdreg cache status --json
      ECDREG_CACHE=s3://bucket/ecdreg ecdreg cache status
    """
    from registry.database import session_scope
    from registry.files.cache import cache_status
    from registry.files.grids import GridStore

    chosen = settings()
    grids = GridStore(chosen.grids_url)
    engine = _engine(chosen)
    if engine is None:
        found = cache_status(None, grids)
    else:
        with session_scope(engine) as session:
            found = cache_status(session, grids)
    if json:
        output.json(asdict(found))
        return
    output.table(
        [
            {"what": "grids", "files": found.grids, "MB": found.grid_bytes / 1e6},
            {"what": "of them this registry's", "files": found.referenced, "MB": found.referenced_bytes / 1e6},
            {"what": "downloaded objects known", "files": found.objects, "MB": found.object_bytes / 1e6},
        ],
        title=f"Density cache {found.url}",
        formats={"MB": ".1f"},
    )
    if found.missing:
        output.warn(f"{found.missing} grids of this registry are not in the cache; is ECDREG_CACHE the right one?")


@group.command("prune")
def prune(
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="DAYS", min=0, help="Keep what was written or used since.")
    ] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed; remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Remove grids that this registry does not need and that are old.

    Only this registry is asked: grids that another registry with the same ECDREG_CACHE needs, and
    that nobody has written or used for DAYS, are removed too; its next ingest downloads them
    again. Not to be run with a small DAYS while an ingest is under way.

    \b
    Examples:
      ecdreg cache prune --dry-run
      ecdreg cache prune
      ecdreg cache prune --older-than 7 --yes
    """
    from registry.database import session_scope
    from registry.errors import ConfigurationError
    from registry.files.cache import plan_prune
    from registry.files.cache import prune as remove
    from registry.files.grids import GridStore

    chosen = settings()
    grids = GridStore(chosen.grids_url)
    engine = _engine(chosen)
    if engine is None:
        raise ConfigurationError(
            f"there is no registry in {chosen.home}, so nothing tells which grids are needed; set ECDREG_HOME"
        )
    with session_scope(engine) as session:
        plan = plan_prune(session, grids, older_than=timedelta(days=older_than))
    about = f"{len(plan.grids)} grids and {len(plan.objects)} objects, {plan.bytes / 1e6:.1f} MB"
    if plan.files and not dry_run:
        if not yes:
            question = f"Remove {about} of {grids.url}? Other registries may need them."
            typer.confirm(question, abort=True, err=True)
        remove(grids, plan)
    if json:
        output.json(
            {
                "url": grids.url,
                "removed": not dry_run,
                "grids": [file.name for file in plan.grids],
                "objects": [file.name for file in plan.objects],
                "leftovers": [file.name for file in plan.leftovers],
                "bytes": plan.bytes,
            }
        )
    elif not plan.files:
        output.line(f"nothing to remove from {grids.url}")
    else:
        output.line(f"{'would remove' if dry_run else 'removed'} {about} of {grids.url}")


def _engine(chosen: Settings) -> Engine | None:
    """Engine on the registry's database; to look after a cache none is made."""
    if chosen.embedded and not (chosen.postgres_data / "PG_VERSION").exists():
        return None
    return open_engine()
