"""``ecdreg evaluate``: whether what the registry answers is any good."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import output
from cli.options.common import JsonOption, SeedOption, command_group
from cli.options.sessions import open_session

__all__ = ["group"]

group = command_group("Hold answers of the registry against what is known.")


@group.command("search")
def search(
    encoder: Annotated[
        list[str] | None,
        typer.Option("--encoder", metavar="NAME", help="Only this encoder; may be repeated. All by default."),
    ] = None,
    fuse: Annotated[
        list[str] | None,
        typer.Option("--fuse", metavar="NAME,NAME", help="Encoders that are asked together; may be repeated."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many neighbours are looked at.")] = 5,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Ask with so many crystals at most.")] = 2000,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Are neighbours alike? How many share the prototype, and how far apart their properties lie.

    Beside each encoder stand the same numbers for neighbours by composition alone and by chance, on the same crystals.
    Encoders that were trained on labels are asked with the holdout of their split. Mean absolute differences between a
    crystal and its k nearest; the smaller the better. The standard error over the crystals asked with is in the JSON.
    `ecdreg encoders add pettifor` makes the encoder pettifor, `ecdreg train stacked` those of slices, texts and
    densities.

    \b
    Examples:
      ecdreg evaluate search
      ecdreg evaluate search --fuse efficientnet_lite0:metric,pettifor
      ecdreg evaluate search -k 10 --encoder minilm:keywords --json
    """
    from registry.properties import PROPERTIES, TARGETS
    from train.analysis.retrieval import evaluate_search

    with open_session() as session, output.progress() as progress:
        scores = evaluate_search(
            session,
            encoders=encoder,
            fused=[[name.strip() for name in one.split(",") if name.strip()] for one in fuse or ()],
            k=k,
            limit=limit,
            seed=seed,
            progress=progress,
        )
    if json:
        output.json(scores)
        return
    columns = {"measure": "neighbours by", "prototype": "same prototype"}
    columns |= {name: f"|Δ {PROPERTIES[name].label}| [{PROPERTIES[name].unit}]" for name in TARGETS}
    blocks: dict[tuple[str, int, int, int], list[dict[str, Any]]] = {}
    for one in scores:
        row = {"measure": one.measure, "prototype": one.prototype, **one.differences}
        blocks.setdefault((one.queries, one.n_queries, one.n_pool, one.k), []).append(row)
    for (queries, n, pool, nearest), rows in blocks.items():
        output.table(
            rows,
            columns,
            title=f"asked with {queries} ({n}); the nearest {nearest} of {pool}",
            formats={"prototype": ".0%", **dict.fromkeys(TARGETS, ".3g")},
        )
        output.line()
