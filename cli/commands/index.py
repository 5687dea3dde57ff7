r"""``ecdreg index``: what makes searches among many vectors quick."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.options.common import JsonOption, command_group, open_engine, settings
from cli.options.sessions import open_session

if TYPE_CHECKING:
    from registry.search.indexes import VectorIndex

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

group = command_group("Indexes that make searches among many vectors quick.")


@group.command("status")
def status(encoder: EncoderArgument = None, metric: MetricOption = None, json: JsonOption = False) -> None:
    """Show the encoders with their vectors and indexes.

    Without an index every vector is compared, which is exact, and quick up to some ten thousand;
    `offered` means that an index would be worth it.

    \b
    Examples:
      ecdreg index status
      ecdreg index status minilm:keywords --json
    """
    from registry.search.indexes import index_status

    with open_session() as session:
        rows = index_status(session, encoder, metric)
    _show(rows, json=json)
    if offered := [row.encoder for row in rows if row.state in ("offered", "invalid")]:
        output.note(f"`ecdreg index build` makes those of {', '.join(dict.fromkeys(map(str, offered)))}")


@group.command("build")
def build(
    encoder: EncoderArgument = None,
    metric: Annotated[
        str, typer.Option("--metric", metavar="NAME", help="Distance to index: cosine, l2 or inner_product.")
    ] = "cosine",
    m: Annotated[int, typer.Option("--m", min=2, max=100, help="Neighbours of a node of the graph.")] = 16,
    ef_construction: Annotated[
        int, typer.Option("--ef-construction", min=4, max=1000, help="Candidates looked at for each node.")
    ] = 128,
    memory: Annotated[
        int | None,
        typer.Option(
            "--memory", min=1, metavar="MB", help="For the graph while it is built; by default what it needs, if free."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Parallel workers; by default the server's choice.")
    ] = None,
    online: Annotated[bool, typer.Option("--online", help="Let others write meanwhile; takes longer.")] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build it anew where it is there.")] = False,
    json: JsonOption = False,
) -> None:
    """Build the HNSW index of an encoder; without a name, of every encoder with many vectors.

    Searches go through it from then on where that is quicker. They find nearly all that an exact
    search finds (`ecdreg bench search` measures it); what they find is compared in full precision.

    \b
    Examples:
      ecdreg index build
      ecdreg index build efficientnet_lite0:metric
      ecdreg index build minilm:keywords --metric l2 --rebuild
    """
    from sqlalchemy.orm import Session

    from registry.search.indexes import BuildOptions, build_index, encoders_worth_an_index

    engine = open_engine()
    options = BuildOptions(m, ef_construction, memory, workers, online, rebuild)
    if encoder is not None:
        names = [encoder]
    else:
        with Session(engine) as session:
            names = encoders_worth_an_index(session)
    built = []
    for name in names:
        output.note(f"building the index of {name} for {metric} ...")
        start = time.perf_counter()
        built.append(build_index(engine, name, metric, options, embedded=settings().embedded))
        output.note(f"{time.perf_counter() - start:.1f} s")
    if not built:
        output.note("no encoder has so many vectors that an index is worth it; name one to build it all the same")
    _show(built, json=json)


@group.command("drop")
def drop(
    encoder: EncoderArgument = None,
    metric: MetricOption = None,
    all_encoders: Annotated[
        bool, typer.Option("--all", help="Of every encoder, and of those that are gone; instead of a name.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Drop the indexes of an encoder, or with --all those of all; searches compare every vector then.

    \b
    Examples:
      ecdreg index drop minilm:keywords
      ecdreg index drop --all --metric l2
    """
    if (encoder is None) != all_encoders:
        raise typer.BadParameter(
            "whose indexes? Give the name of an encoder, or --all for those of all"
            if encoder is None
            else f"{encoder} and --all; give one of the two"
        )
    from registry.search.indexes import drop_indexes

    dropped = drop_indexes(open_engine(), encoder, metric)
    if json:
        output.json([asdict(row) for row in dropped])
        return
    for row in dropped:
        output.line(f"dropped: {row.encoder or 'an encoder that is gone'}, {row.metric}")
    if not dropped:
        output.note("there is no such index")


def _show(rows: list[VectorIndex], *, json: bool) -> None:
    if json:
        output.json([asdict(row) for row in rows])
    elif rows:
        output.table([asdict(row) for row in rows], _COLUMNS, formats=_FORMATS)
