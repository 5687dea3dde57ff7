"""``ecdreg plot``: the figures of the paper, drawn from what the registry holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.commands.plot_map import plot_map
from cli.commands.reproduce import LevelsOption, SeedsOption, SplitTemplateOption
from cli.options.common import RecipeOption, TargetOption, command_group
from cli.options.sessions import open_session

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from sqlalchemy.orm import Session

__all__ = ["group"]

OutOption = Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="File to draw into.")]
SplitArgument = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help="Only crystals of this split; all by default.")
]

group = command_group("Draw figures from what the registry holds: PNG, SVG, PDF or HTML by the file's ending.")
group.command("map")(plot_map)


@group.command("scores")
def scores(
    out: OutOption = Path("scores.png"),
    target: TargetOption = None,
    seed: SeedsOption = None,
    split: SplitTemplateOption = "paper-{target}-{seed}",
    recipe: RecipeOption = "metric",
    text_level: LevelsOption = None,
) -> None:
    """Figure 2: scores by stage and text level beside the published ones, and their average over the targets.

    What `ecdreg reproduce paper` has finished by now, with the composition baseline as a line.

    \b
    Examples:
      ecdreg plot scores -o figure2.png
      ecdreg plot scores --target k_vrh --recipe imported -o figure2-imported.pdf
      ecdreg plot scores --seed 0 --split default --text-level keywords
    """

    def make(session: Session) -> Figure:
        from cli.commands.reproduce import plan_of
        from ecdreg.figures.scores import draw
        from registry.errors import NotFoundError
        from train.paper.reproduction import finished

        found = finished(session, plan_of(target, seed, split, [recipe], text_level))
        if not any(line.row.recipe or line.row.text_level for line in found.lines):
            raise NotFoundError(f"nothing of the splits {split!r} is finished; `ecdreg reproduce paper` trains it")
        return draw(found.lines)

    with open_session() as session:
        _draw(session, out, make, title="Scores by stage and text level")


@group.command("composition")
def composition(
    out: OutOption = Path("composition.png"),
    split: SplitArgument = None,
) -> None:
    """Figure 3: which elements the crystals have, how many, which prototypes, and which values.

    \b
    Examples:
      ecdreg plot composition -o composition.png
      ecdreg plot composition --split paper-k_vrh-420 -o composition.html
    """

    def make(session: Session) -> Figure:
        from ecdreg.figures.composition import draw, read

        crystals = read(session, split)
        where = f"split {split}" if split else "all crystals"
        return draw(crystals, title=f"{len(crystals)} crystals, {where}")

    with open_session() as session:
        _draw(session, out, make, title="Composition statistics")


@group.command("density")
def density(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="By default: of the largest moment.", show_default=False),
    ] = None,
    out: OutOption = Path("density.png"),
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="total, spin or deformation (twice); by default total with spin, or with deformation where there is no"
            " spin.",
        ),
    ] = None,
) -> None:
    """Figure 4: two kinds of charge density beside each other, in planes along z.

    One conventional cell, from the central atom (z = 0) up to half a lattice parameter.

    \b
    Examples:
      ecdreg plot density -o figure4.png
      ecdreg plot density mp-1022 --kind total --kind deformation -o k2s.png
    """
    from cli.options.common import settings
    from registry.errors import ConfigurationError
    from registry.files.grids import GridStore

    kinds = tuple(kind or _usual_kinds(ids))
    if len(kinds) != 2 or set(kinds) - {"total", "spin", "deformation"} or kinds[0] == kinds[1]:
        raise ConfigurationError(f"--kind {' '.join(kinds)}: give two of total, spin, deformation")

    def make(session: Session) -> Figure:
        from ecdreg.figures.densities import draw_planes, read_planes

        grids = GridStore(settings().grids_url)
        return draw_planes(read_planes(session, grids, ids or [], kinds=(kinds[0], kinds[1])))

    with open_session() as session:
        _draw(session, out, make, title=f"{kinds[0]} and {kinds[1]} density along z")


def _usual_kinds(ids: list[str] | None) -> tuple[str, str]:
    """Total and spin, as published; deformation instead where one of the crystals that are named has no spin."""
    if not ids:
        return ("total", "spin")
    from sqlalchemy import text

    from registry.crystals import resolve

    with open_session() as session:
        found = session.scalar(
            text("SELECT bool_and('spin' = ANY(density_kinds)) FROM v_materials WHERE crystal_id = ANY(:ids)"),
            {"ids": [resolve(session, ident).crystal_id for ident in ids]},
        )
    return ("total", "spin" if found else "deformation")


@group.command("curves")
def curves(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="name[:target][@alias or @version].", show_default=False)
    ],
    out: OutOption = Path("curves.png"),
) -> None:
    """Figure 6: learning curves of models, every fold and their mean.

    Networks have them; a baseline or a regressor, such as the Gaussian process of `ecdreg train stacked`, is fitted in
    one step.

    \b
    Examples:
      ecdreg plot curves stacked -o figure6.png
      ecdreg plot curves image:k_vrh text:k_vrh stacked:k_vrh -o k.html
    """

    def make(session: Session) -> Figure:
        from ecdreg.figures.curves import draw, read

        return draw(read(session, models))

    with open_session() as session:
        _draw(session, out, make, title="Learning curves")


@group.command("fourier")
def fourier(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="By default four, soft to stiff.", show_default=False),
    ] = None,
    out: OutOption = Path("fourier.png"),
    recipe: RecipeOption = "metric",
) -> None:
    """Figure 9: slices above their Fourier magnitudes, which forget where the window lies.

    \b
    Examples:
      ecdreg plot fourier -o figure9.png
      ecdreg plot fourier mp-1022 mp-149 --recipe paper-total
    """

    def make(session: Session) -> Figure:
        from ecdreg.figures.densities import draw_fourier, read_slices
        from registry.image_recipes import find_recipe

        unit = find_recipe(session, recipe).unit
        return draw_fourier(read_slices(session, ids or [], recipe=recipe), recipe=recipe, unit=unit)

    with open_session() as session:
        _draw(session, out, make, title="Slices and their Fourier magnitudes")


def _draw(session: Session, out: Path, make: Callable[[Session], Figure], *, title: str) -> None:
    from ecdreg.figures.canvas import check_path, style, write

    check_path(out)
    with style():
        write(make(session), out, title=title)
    output.line(f"{out} ({out.stat().st_size / 1024:.0f} kB)")
