"""``ecdreg evaluate``: quality of the answers of the registry."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import output
from cli.connections import open_registry
from cli.groups import command_group
from cli.options.arguments import JsonOption, SeedOption

__all__ = ["group"]

group = command_group("Measure the quality of answers of the registry.")


@group.command("search")
def search(
    encoder: Annotated[
        list[str] | None,
        typer.Option("--encoder", metavar="NAME", help="Only this encoder; may be repeated. All by default."),
    ] = None,
    fuse: Annotated[
        list[str] | None,
        typer.Option("--fuse", metavar="NAME,NAME", help="Encoders that are fused by their ranks; may be repeated."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of neighbours of each crystal.")] = 5,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Number of query crystals at most.")] = 2000,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Measure how alike neighbours are: the share with the same prototype, and differences of properties.

    The table compares each encoder with neighbours by composition alone and by chance, on the same crystals. Encoders
    that were trained on labels are evaluated on the holdout of their split. The columns |Δ| are mean absolute
    differences between a crystal and its k nearest; smaller is better. The JSON output has the standard error over the
    query crystals. `ecdreg encoders add pettifor` makes the encoder pettifor, `ecdreg train stacked` those of slices,
    texts and densities.

    \b
    Examples:
      ecdreg evaluate search
      ecdreg evaluate search --fuse efficientnet_lite0:metric,pettifor
      ecdreg evaluate search -k 10 --encoder minilm:keywords --json
    """
    from registry.properties import PROPERTIES, TARGETS

    registry = open_registry()
    with output.progress() as progress:
        scores = registry.evaluate_search(
            encoders=encoder,
            fused=[[name.strip() for name in one.split(",") if name.strip()] for one in fuse or ()],
            k=k,
            limit=limit,
            seed=seed,
            progress=progress,
        )
    if json:
        output.json(scores.to_dicts())
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
            title=f"queries: {queries} ({n}); the nearest {nearest} of {pool}",
            formats={"prototype": ".0%", **dict.fromkeys(TARGETS, ".3g")},
        )
        output.line()
