r"""``ecdreg bench``: how good the registry's own numbers are, and how quick its search."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import output
from cli.options.common import JsonOption, KOption, LimitOption, SeedOption, command_group, open_engine
from cli.options.common import settings as environment

__all__ = ["group"]

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

group = command_group("Measure what the registry derives by itself, and how it searches.")


@group.command("free-atoms")
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


@group.command("search")
def search(
    rows: Annotated[int, typer.Option("--rows", min=3000, help="Vectors with an index.")] = 100_000,
    dim: Annotated[int, typer.Option("--dim", min=2, max=4000, help="Their length.")] = 768,
    k: KOption = 10,
    queries: Annotated[int, typer.Option("--queries", min=100, help="Queries that are timed.")] = 500,
    full: Annotated[
        bool, typer.Option("--full", help="Also build the index of 1,000,000 x 256, which takes ten minutes or more.")
    ] = False,
    full_rows: Annotated[int, typer.Option("--full-rows", min=3000, help="Vectors of that index.")] = 1_000_000,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Measure the search by vectors in SQL: recall, latency, filters, index; beside FAISS and hnswlib.

    Clustered random vectors in a database of its own on the registry's server, which is dropped
    afterwards. Recall is against an exact search by FAISS. Needs `pip install 'ecdreg[bench]'`, and
    some GB of disk for a while. Exits with 1 where a goal is missed.

    \b
    Examples:
      ecdreg bench search
      ecdreg bench search --rows 20000 --dim 64 --json
      ecdreg bench search --full
    """
    from ecdreg.benchmarks.search import Setting, bench_search

    setting = Setting(rows, dim, k, queries, full_rows=full_rows if full else 0, seed=seed)
    embedded = environment().embedded
    with output.progress() as progress:
        found = list(bench_search(open_engine(), setting, progress, embedded=embedded))
    table: list[dict[str, Any]] = [
        {
            "what": one.what,
            "value": one.value if json else f"{one.value:.4g}",
            "unit": one.unit,
            "goal": one.goal,
            "met": one.met if json else {True: "yes", False: "no", None: ""}[one.met],
        }
        for one in found
    ]
    output.rows(table, json=json)
    if missed := [one.what for one in found if one.met is False]:
        output.note(f"missed: {'; '.join(missed)} (timings count on a machine without other work)")
        raise typer.Exit(1)


_LABELS = ("source_id", "formula", "prototype")
