r"""``ecdreg bench``: how good the registry's own numbers are, measured on a source that knows better."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import output
from cli.options import JsonOption, LimitOption, command_group

__all__ = ["register"]

_COLUMNS = {
    "prototype": "prototype",
    "crystals": "n",
    "correlation": "r cell",
    "worst_correlation": "worst",
    "l1": "L1",
    "l2": "L2",
    "interstitial_correlation": "r between",
    "worst_interstitial_correlation": "worst",
    "interstitial_l1": "L1",
    "interstitial_l2": "L2",
    "worst_interstitial_l2": "worst",
    "image_correlation": "r image",
    "worst_image_correlation": "worst",
}
_FORMATS = {name: ".3f" for name in _COLUMNS if name not in ("prototype", "crystals")}


def register(app: typer.Typer) -> None:
    """Attach the group ``ecdreg bench``.

    Parameters
    ----------
    app
        The root application.
    """
    group = command_group("Measure what the registry derives by itself.")
    group.command("free-atoms")(free_atoms)
    app.add_typer(group, name="bench")


def free_atoms(
    source: Annotated[
        str, typer.Option("--source", metavar="NAME|DIR/", help="Source with total and deformation densities.")
    ] = "sample",
    outside: Annotated[
        float, typer.Option("--outside", min=0.0, help="Between the atoms means farther than this from each [Å].")
    ] = 1.0,
    every: Annotated[
        int, typer.Option("--every", min=1, help="Only every so-manieth crystal, the first included.")
    ] = 1,
    rest: Annotated[bool, typer.Option("--rest", help="All but those of --every.")] = False,
    limit: LimitOption = None,
    crystals: Annotated[bool, typer.Option("--crystals", help="A line for each crystal, not each prototype.")] = False,
    json: JsonOption = False,
) -> None:
    """Compare deformation densities made of free atoms with calculated ones.

    For each crystal that has both a total and a deformation density, free atoms are subtracted
    from the total one. Shown: Pearson's correlation r with the calculated deformation density,
    and the relative errors L1 and L2, in the whole cell, between the atoms, and in the picture
    of the recipe metric; medians, and the worst.

    \b
    Examples:
      ecdreg bench free-atoms --source sample
      ecdreg bench free-atoms --source ./mydata/ --outside 0.8
      ecdreg bench free-atoms --source ./mydata/ --crystals --json
    """
    from ingest.free_atoms.validation import Agreement, compare_source, summarize
    from ingest.sources import open_source

    agreements: list[Agreement] = []
    left_out: list[str] = []
    with output.progress() as progress:
        for found in compare_source(
            open_source(source), progress, outside=outside, limit=limit, every=every, rest=rest
        ):
            if isinstance(found, Agreement):
                agreements.append(found)
            else:
                left_out.append(found)
    rows: list[dict[str, Any]] = [vars(a) for a in agreements] if crystals else summarize(agreements)
    if json:
        output.json({"rows": rows, "left_out": left_out})
        return
    if crystals:
        output.table(rows, formats={name: ".3f" for name in rows[0] if name not in _LABELS} if rows else None)
    else:
        output.table(rows, _COLUMNS, formats=_FORMATS)
    for line in left_out[:5]:
        output.note(f"left out: {line}")
    if len(left_out) > 5:
        output.note(f"and {len(left_out) - 5} more")


_LABELS = ("source_id", "formula", "prototype")
