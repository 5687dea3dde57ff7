"""``ecdreg report``: one HTML file about a model and its scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.connections import open_registry

__all__ = ["report"]


def report(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="name[:target][@alias or @version].", show_default=False)
    ],
    out: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write.")] = Path("report.html"),
    samples: Annotated[
        int, typer.Option("--samples", min=1, max=8, help="Number of crystals whose slices and texts are shown.")
    ] = 4,
    crystal: Annotated[
        list[str] | None,
        typer.Option("--crystal", metavar="ID", help="Also explain the prediction for this crystal; repeatable."),
    ] = None,
) -> None:
    """Write a report of a model: scores with the baselines, parity plot, intervals, learning curves.

    The file is self-contained: it can be mailed, and opens without a network. Without a target in
    MODEL there is a section for each target.

    \b
    Examples:
      ecdreg report stacked:k_vrh -o stacked-k_vrh.html
      ecdreg report stacked -o stacked.html --samples 6
      ecdreg report stacked:k_vrh --crystal mp-1022 -o stacked-k_vrh.html
    """
    from ecdreg.report.model import write_model_report

    with output.progress() as progress:
        path = write_model_report(
            open_registry(), model, out, samples=samples, crystals=crystal or (), progress=progress
        )
    output.file(path)
