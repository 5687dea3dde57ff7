"""``ecdreg cache``: the density cache, which several registries may share."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from cli import output
from cli.connections import settings
from cli.groups import command_group
from cli.options.arguments import JsonOption
from ecdreg.cache import cache_status, plan_prune
from ecdreg.cache import prune as remove

__all__ = ["group"]

group = command_group("The density cache at ECDREG_CACHE, which several registries may share.")


@group.command()
def status(json: JsonOption = False) -> None:
    """Show the place of the cache, its files, and those that this registry needs.

    Grids are named by their checksum, so that two registries share what is equal. Objects are downloads whose grids
    are known: no registry with this cache downloads them again.

    \b
    Examples:
      ecdreg cache status
      ecdreg cache status --json
      ECDREG_CACHE=s3://bucket/ecdreg ecdreg cache status
    """
    found = cache_status(settings())
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


@group.command()
def prune(
    older_than: Annotated[
        float, typer.Option("--older-than", metavar="DAYS", min=0, help="Keep what was written or used since.")
    ] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be removed; remove nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: JsonOption = False,
) -> None:
    """Remove old grids that this registry does not need.

    Grids that another registry with the same ECDREG_CACHE needs, and that were not written or used for DAYS, are
    removed too; its next ingest downloads them again. Do not run it with a small DAYS during an ingest.

    \b
    Examples:
      ecdreg cache prune --dry-run
      ecdreg cache prune
      ecdreg cache prune --older-than 7 --yes
    """
    chosen = settings()
    url = chosen.grids_url
    plan = plan_prune(chosen, older_than=timedelta(days=older_than))
    about = f"{len(plan.grids)} grids and {len(plan.objects)} objects, {plan.bytes / 1e6:.1f} MB"
    if plan.files and not dry_run:
        if not yes:
            question = f"Remove {about} of {url}? Other registries may need them."
            typer.confirm(question, abort=True, err=True)
        remove(chosen, plan)
    if json:
        output.json(
            {
                "url": url,
                "removed": not dry_run,
                "grids": [file.name for file in plan.grids],
                "objects": [file.name for file in plan.objects],
                "leftovers": [file.name for file in plan.leftovers],
                "bytes": plan.bytes,
            }
        )
    elif not plan.files:
        output.line(f"nothing to remove from {url}")
    else:
        output.line(f"{'would remove' if dry_run else 'removed'} {about} of {url}")
