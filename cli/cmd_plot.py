"""``ecdreg plot``: the figures of the paper, drawn from what the registry holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.options import command_group
from cli.plot_map import plot_map
from cli.sessions import open_session

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from sqlalchemy.orm import Session

__all__ = ["register"]

SplitArgument = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help="Only crystals of this split; all by default.")
]


def register(app: typer.Typer) -> None:
    """Attach ``ecdreg plot``.

    Parameters
    ----------
    app
        The root application.
    """
    group = command_group("Draw figures from what the registry holds: PNG, SVG, PDF or HTML by the file's ending.")
    group.command("composition")(composition)
    group.command("map")(plot_map)
    app.add_typer(group, name="plot")


def composition(
    out: Annotated[Path, typer.Option("-o", "--output", help="File to draw into.")] = Path("composition.png"),
    split: SplitArgument = None,
) -> None:
    """Figure 3: which elements the crystals have, how many, which prototypes, and which values.

    \b
    Examples:
      ecdreg plot composition -o composition.png
      ecdreg plot composition --split paper-k_vrh-420 -o composition.html
    """

    def make(session: Session) -> Figure:
        from cli.figures.composition import draw, read

        crystals = read(session, split)
        where = f"split {split}" if split else "all crystals"
        return draw(crystals, title=f"{len(crystals)} crystals, {where}")

    with open_session() as session:
        _draw(session, out, make, title="Composition statistics")


def _draw(session: Session, out: Path, make: Callable[[Session], Figure], *, title: str) -> None:
    from cli.figures.canvas import check_path, style, write

    check_path(out)
    with style():
        write(make(session), out, title=title)
    output.line(f"{out} ({out.stat().st_size / 1024:.0f} kB)")
