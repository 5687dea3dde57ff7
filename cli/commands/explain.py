"""``ecdreg explain``: the shares of modalities, pixels, words and other features in a prediction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.connections import open_registry
from cli.options.arguments import JsonOption

if TYPE_CHECKING:
    from ecdreg.explained_prediction import ExplainedPrediction, Parts

__all__ = ["explain"]


def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME[:TARGET][@ALIAS or @VERSION].")],
    id: Annotated[str, typer.Argument(metavar="ID", help="A crystal's id, or source:id.", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="HTML file to write, with maps of the pixels.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Explain a prediction: the shares of modalities, pixels, words and other features.

    Shares of modalities, words and features are Shapley values, those of pixels integrated gradients: each kind
    sums to a difference of two predictions, without remainder (docs/concepts/attribution.md). A crystal of the model's
    cross-validation is explained with the model of the fold that left it out.

    \b
    Examples:
      ecdreg explain stacked:k_vrh mp-1022
      ecdreg explain stacked:k_vrh mp-1022 -o why.html
      ecdreg explain stacked mp-1022 --json
    """
    registry = open_registry()
    with output.progress() as progress:
        found = registry.explain(model, id, page=out, progress=progress)
    if out is not None:
        output.file(out)
    elif json:
        output.json(found.to_dicts())
    else:
        for one in found:
            _print(one)
    output.remarks(found)


def _print(found: ExplainedPrediction) -> None:
    one = found.explanation
    model = "refit" if one.fold is None else f"model of fold {one.fold}"
    known = "" if one.known is None else f", known {one.known:.4g}{' (suspect)' if one.suspect else ''}"
    share = "" if found.confidence is None else f"{100 * found.confidence:g} % "
    interval = "" if found.interval is None else f"; {share}interval {found.interval}"
    output.line(
        f"{one.model} predicts {one.predicted:.4g} {one.unit} for {one.formula} ({one.source_id}){known}; {model}"
        f"{interval}"
    )
    output.table(
        _rows(one.modalities, one.unit),
        title=f"Modalities, from the mean of other crystals ({one.modalities.empty:.4g} {one.unit})",
    )
    if one.pixels is not None:
        sums = one.pixels.by_channel or {"all together": float(one.pixels.values.sum())}
        output.table(
            [{"channel": kind, f"share [{one.unit}]": share} for kind, share in sums.items()],
            title=f"Pixels, from the mean slice ({one.pixels.empty:.4g}) to its own ({one.pixels.full:.4g} {one.unit}):"
            f" {one.pixels.method}, {one.pixels.steps} steps, gap {one.pixels.gap:.1g}; -o draws them",
        )
    if one.words is not None:
        output.table(_rows(one.words, one.unit), title=f"Words, from none of them ({one.words.empty:.4g} {one.unit})")
    for name, parts in one.features.items():
        rows = sorted(_rows(parts, one.unit), key=lambda row: -abs(row[f"share [{one.unit}]"]))
        output.table(rows[:10], title=f"Largest of {len(rows)} groups of {name} features, from their mean")


def _rows(parts: Parts, unit: str) -> list[dict[str, Any]]:
    return [
        {"part": name, f"share [{unit}]": float(value)} | ({"±": float(error)} if error else {})
        for name, value, error in zip(parts.names, parts.values, parts.error, strict=True)
    ]
