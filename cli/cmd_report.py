"""``ecdreg report``: one HTML file that shows how a model does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.options import open_engine, settings

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Attach ``ecdreg report``.

    Parameters
    ----------
    app
        The root application.
    """
    app.command("report")(report)


def report(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="name[:target][@alias or @version].", show_default=False)
    ],
    out: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write.")] = Path("report.html"),
    samples: Annotated[
        int, typer.Option("--samples", min=1, max=8, help="Crystals whose slices and texts are shown.")
    ] = 4,
) -> None:
    """Write a report of a model: scores beside the baselines, parity plot, intervals, learning curves.

    The file is self-contained: it can be mailed, and opens without a network. Without a target in
    MODEL there is a section for each.

    \b
    Examples:
      ecdreg report stacked:k_vrh -o stacked-k_vrh.html
      ecdreg report stacked -o stacked.html --samples 6
    """
    from sqlalchemy.orm import Session

    from registry.errors import ConfigurationError
    from registry.model_store import resolve_model

    if out.is_dir() or not out.absolute().parent.is_dir():
        raise ConfigurationError(f"cannot write {out}: no such folder, or a folder itself; give a file to -o")
    engine = open_engine()
    with Session(engine) as session:
        found = resolve_model(session, model)
        from cli.report.calibration import calibrate
        from cli.report.content import collect
        from cli.report.page import render

        page = render(
            [
                collect(
                    session,
                    m.experiment,
                    m.model_version,
                    n_samples=samples,
                    calibration=calibrate(engine, settings(), m),
                )
                for m in found
            ]
        )
    part = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(out)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigurationError(f"cannot write {out}: {error.strerror}; choose another file with -o") from error
    output.line(f"{out} ({len(page.encode()) / 1024:.0f} kB)")
