"""``ecdreg report``: one HTML file that shows how a model does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.commands.explain import check_page, write_page
from cli.options.common import open_registry, settings

__all__ = ["report"]


def report(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="name[:target][@alias or @version].", show_default=False)
    ],
    out: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write.")] = Path("report.html"),
    samples: Annotated[
        int, typer.Option("--samples", min=1, max=8, help="Crystals whose slices and texts are shown.")
    ] = 4,
    crystal: Annotated[
        list[str] | None,
        typer.Option("--crystal", metavar="ID", help="Explain what is said of this crystal as well; repeatable."),
    ] = None,
) -> None:
    """Write a report of a model: scores beside the baselines, parity plot, intervals, learning curves.

    The file is self-contained: it can be mailed, and opens without a network. Without a target in
    MODEL there is a section for each.

    \b
    Examples:
      ecdreg report stacked:k_vrh -o stacked-k_vrh.html
      ecdreg report stacked -o stacked.html --samples 6
      ecdreg report stacked:k_vrh --crystal mp-1022 -o stacked-k_vrh.html
    """
    from sqlalchemy.orm import Session

    from registry.model_store import resolve_model

    check_page(out)
    registry = open_registry()
    with output.progress() as progress:
        explanations = [
            (one.explanation, one.interval) for one in registry.explain(model, crystal or (), progress=progress)
        ]
    with Session(registry.engine) as session:
        found = resolve_model(session, model)
        from ecdreg.report.calibration import calibrate
        from ecdreg.report.content import collect
        from ecdreg.report.page import render

        page = render(
            [
                collect(
                    session,
                    m.experiment,
                    m.model_version,
                    n_samples=samples,
                    calibration=calibrate(registry.engine, settings(), m),
                )
                for m in found
            ],
            explanations=explanations,
        )
    write_page(out, page)
