"""``ecdreg index``: indexes that make searches among many vectors fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.connections import open_registry
from cli.groups import command_group
from cli.options.arguments import JsonOption

if TYPE_CHECKING:
    from ecdreg.results import Results
    from ecdreg.search.indexes import VectorIndex

__all__ = ["group"]

EncoderArgument = Annotated[
    str | None, typer.Argument(metavar="ENCODER", help="Name or alias of an encoder.", show_default=False)
]
MetricOption = Annotated[
    str | None, typer.Option("--metric", metavar="NAME", help="Only for this one: cosine, l2 or inner_product.")
]

_COLUMNS = {
    "encoder": "encoder",
    "dim": "dim",
    "vectors": "vectors",
    "metric": "metric",
    "state": "index",
    "megabytes": "size [MB]",
}
_FORMATS = {"megabytes": ".1f"}

group = command_group("Build and drop indexes that make searches among many vectors fast.")


@group.command("status")
def status(encoder: EncoderArgument = None, metric: MetricOption = None, json: JsonOption = False) -> None:
    """Show the encoders with their vectors and indexes.

    Without an index every vector is compared: the answer is exact, and fast up to some ten thousand vectors. `offered`
    means that an index would make searches faster.

    \b
    Examples:
      ecdreg index status
      ecdreg index status minilm:keywords --json
    """
    _print(open_registry().index_status(encoder, metric=metric), json=json)


@group.command("build")
def build(
    encoder: EncoderArgument = None,
    metric: Annotated[
        str, typer.Option("--metric", metavar="NAME", help="Distance to index: cosine, l2 or inner_product.")
    ] = "cosine",
    m: Annotated[int, typer.Option("--m", min=2, max=100, help="Neighbours of a node of the graph.")] = 16,
    ef_construction: Annotated[
        int, typer.Option("--ef-construction", min=4, max=1000, help="Candidates for the neighbours of each node.")
    ] = 128,
    memory: Annotated[
        int | None,
        typer.Option(
            "--memory",
            min=1,
            metavar="MB",
            help="Memory for the graph while it is built; by default what it needs, if free.",
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Parallel workers; by default the choice of the server.")
    ] = None,
    online: Annotated[bool, typer.Option("--online", help="Let others write during the build; takes longer.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build an existing index anew.")] = False,
    json: JsonOption = False,
) -> None:
    """Build the HNSW index of an encoder; without a name, of every encoder with many vectors.

    Searches use it from then on where that is faster. They find nearly all that an exact search finds
    (`ecdreg bench search` measures it); the crystals found are compared in full precision.

    \b
    Examples:
      ecdreg index build
      ecdreg index build efficientnet_lite0:metric
      ecdreg index build minilm:keywords --metric l2 --rebuild
    """
    registry = open_registry()
    with output.progress() as progress:
        built = registry.build_indexes(
            encoder,
            metric=metric,
            m=m,
            ef_construction=ef_construction,
            memory_mb=memory,
            workers=workers,
            online=online,
            rebuild=rebuild,
            progress=progress,
        )
    _print(built, json=json)


@group.command("drop")
def drop(
    encoder: EncoderArgument = None,
    metric: MetricOption = None,
    all_encoders: Annotated[
        bool, typer.Option("--all", help="All encoders, also those that do not exist any more; instead of a name.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Drop the indexes of an encoder, or with --all those of all; searches compare every vector then.

    \b
    Examples:
      ecdreg index drop minilm:keywords
      ecdreg index drop --all --metric l2
    """
    dropped = open_registry().drop_indexes(encoder, metric=metric, all_encoders=all_encoders)
    if json:
        output.json(dropped.to_dicts())
    for row in () if json else dropped:
        output.line(f"dropped: {row.encoder or 'an encoder that does not exist any more'}, {row.metric}")
    output.remarks(dropped)


def _print(indexes: Results[VectorIndex], *, json: bool) -> None:
    if json:
        output.json(indexes.to_dicts())
    elif indexes:
        output.table(indexes.to_dicts(), _COLUMNS, formats=_FORMATS)
    output.remarks(indexes)
