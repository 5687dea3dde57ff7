r"""Command group ``ecdreg bench``: benchmarks of derived densities and of the vector search."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import output
from cli.connections import open_engine
from cli.connections import settings as environment
from cli.groups import command_group
from cli.options.arguments import JsonOption, KOption, LimitOption, SeedOption

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

group = command_group("Run benchmarks of derived densities and of the vector search.")


@group.command("free-atoms")
def free_atoms(
    source: Annotated[
        str, typer.Option("--source", metavar="NAME|DIR/", help="Source with total and deformation densities.")
    ] = "sample",
    outside: Annotated[
        float, typer.Option("--outside", min=0.0, help="Distance from every atom that interstitial points exceed [Å].")
    ] = 1.0,
    every: Annotated[
        int, typer.Option("--every", min=1, help="Compare each N-th crystal, beginning with the first.")
    ] = 1,
    rest: Annotated[bool, typer.Option("--rest", help="Compare all crystals except those of --every.")] = False,
    limit: LimitOption = None,
    crystals: Annotated[bool, typer.Option("--crystals", help="Print a line for each crystal.")] = False,
    json: JsonOption = False,
) -> None:
    """Compare deformation densities from superposed free atoms with calculated ones.

    For each crystal with a total and a deformation density, superposed free atoms are subtracted
    from the total density. The table has Pearson's correlation r with the calculated deformation
    density, and the relative errors L1 and L2: in the whole cell, at interstitial points, and in
    the image of the recipe metric. Each value is the median, and the worst one.

    \b
    Examples:
      ecdreg bench free-atoms --source sample
      ecdreg bench free-atoms --source ./mydata/ --outside 0.8
      ecdreg bench free-atoms --source ./mydata/ --crystals --json
    """
    from ecdreg.benchmarks.free_atoms import benchmark_free_atoms

    with output.progress() as progress:
        result = benchmark_free_atoms(source, outside=outside, every=every, rest=rest, limit=limit, progress=progress)
    rows = [vars(comparison) for comparison in result.comparisons] if crystals else result.by_prototype()
    if json:
        output.json({"rows": rows, "left_out": result.left_out})
        return
    if crystals:
        output.table(rows, formats={name: ".3f" for name in rows[0] if name not in _LABELS} if rows else None)
    else:
        output.table(rows, _COLUMNS, formats=_FORMATS)
    for line in result.left_out[:5]:
        output.note(f"left out: {line}")
    if len(result.left_out) > 5:
        output.note(f"and {len(result.left_out) - 5} more")


@group.command("search")
def search(
    rows: Annotated[int, typer.Option("--rows", min=3000, help="Number of vectors with an index.")] = 100_000,
    dim: Annotated[int, typer.Option("--dim", min=2, max=4000, help="Length of these vectors.")] = 768,
    k: KOption = 10,
    queries: Annotated[int, typer.Option("--queries", min=100, help="Number of timed queries.")] = 500,
    full: Annotated[
        bool, typer.Option("--full", help="Also build the index of 1,000,000 x 256, which takes ten minutes or more.")
    ] = False,
    full_rows: Annotated[int, typer.Option("--full-rows", min=3000, help="Vectors of that index.")] = 1_000_000,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Measure recall, latency, filters and index of the vector search, and compare with FAISS and hnswlib.

    The benchmark searches clustered random vectors in a temporary database on the server of the
    registry. The reference of the recall is an exact search by FAISS. It needs
    `pip install 'ecdreg[bench]'` and some GB of disk. It exits with 1 if a goal is missed.

    \b
    Examples:
      ecdreg bench search
      ecdreg bench search --rows 20000 --dim 64 --json
      ecdreg bench search --full
    """
    from ecdreg.benchmarks.search import SearchSizes, benchmark_search

    sizes = SearchSizes(rows, dim, k, queries, full_rows=full_rows if full else 0, seed=seed)
    embedded = environment().embedded
    with output.progress() as progress:
        measurements = benchmark_search(open_engine(), sizes, progress=progress, embedded=embedded)
    table: list[dict[str, Any]] = [
        {
            "what": measurement.what,
            "value": measurement.value if json else f"{measurement.value:.4g}",
            "unit": measurement.unit,
            "goal": measurement.goal,
            "met": measurement.met if json else {True: "yes", False: "no", None: ""}[measurement.met],
        }
        for measurement in measurements
    ]
    output.rows(table, json=json)
    if missed := [measurement.what for measurement in measurements if measurement.met is False]:
        output.note(f"missed goals: {'; '.join(missed)} (timings are valid only on a machine without other work)")
        raise typer.Exit(1)


_LABELS = ("source_id", "formula", "prototype")
