"""``ecdreg plot``: the figures of the paper, drawn from the registry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.commands.plot_map import plot_map
from cli.commands.reproduce import SeedsOption, SplitTemplateOption, TextLevelsOption
from cli.connections import open_registry
from cli.groups import command_group
from cli.options.arguments import RecipeOption, TargetOption

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ecdreg import Registry

__all__ = ["group"]

OutOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="FILE", help="File to write: PNG, SVG, PDF or HTML by its ending.")
]
SplitArgument = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help="Only crystals of this split; all by default.")
]

group = command_group("Draw figures from the registry: PNG, SVG, PDF or HTML by the ending of the file.")
group.command("map")(plot_map)


@group.command("scores")
def scores(
    out: OutOption = Path("scores.png"),
    target: TargetOption = None,
    seed: SeedsOption = None,
    split: SplitTemplateOption = "paper-{target}-{seed}",
    recipe: RecipeOption = "metric",
    text_level: TextLevelsOption = None,
) -> None:
    """Figure 2: scores by stage and text level with the published scores, and their average over the targets.

    The figure has the finished experiments of `ecdreg reproduce paper`, and the composition baseline as a line.

    \b
    Examples:
      ecdreg plot scores -o figure2.png
      ecdreg plot scores --target k_vrh --recipe imported -o figure2-imported.pdf
      ecdreg plot scores --seed 0 --split default --text-level keywords
    """

    def make(registry: Registry) -> Figure:
        from ecdreg.figures.scores import scores_figure
        from ecdreg.reproduction.paper import plan_reproduction

        plan = plan_reproduction(targets=target, seeds=seed, split=split, recipes=[recipe], text_levels=text_level)
        return scores_figure(registry, plan)

    _write(out, make)


@group.command("composition")
def composition(
    out: OutOption = Path("composition.png"),
    split: SplitArgument = None,
) -> None:
    """Figure 3: elements, number of elements, prototypes and target values of the crystals.

    \b
    Examples:
      ecdreg plot composition -o composition.png
      ecdreg plot composition --split paper-k_vrh-420 -o composition.html
    """

    def make(registry: Registry) -> Figure:
        from ecdreg.figures.composition import composition_figure

        return composition_figure(registry, split)

    _write(out, make)


@group.command("density")
def density(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID", help="By default, the crystal with the largest magnetic moment.", show_default=False
        ),
    ] = None,
    out: OutOption = Path("density.png"),
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="KIND",
            help="total, spin or deformation (twice); by default total and spin, or total and deformation if there is"
            " no spin density.",
        ),
    ] = None,
) -> None:
    """Figure 4: two kinds of charge density, in planes along z.

    One conventional cell, from the central atom (z = 0) up to half a lattice parameter.

    \b
    Examples:
      ecdreg plot density -o figure4.png
      ecdreg plot density mp-1022 --kind total --kind deformation -o k2s.png
    """

    def make(registry: Registry) -> Figure:
        from ecdreg.figures.densities import density_figure

        return density_figure(registry, ids or (), kinds=kind or ())

    _write(out, make)


@group.command("curves")
def curves(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL", help="name[:target][@alias or @version].", show_default=False)
    ],
    out: OutOption = Path("curves.png"),
) -> None:
    """Figure 6: learning curves of models, every fold and their mean.

    Networks have learning curves. A baseline or a regressor, such as the Gaussian process of `ecdreg train stacked`, is
    fitted in one step.

    \b
    Examples:
      ecdreg plot curves stacked -o figure6.png
      ecdreg plot curves image:k_vrh text:k_vrh stacked:k_vrh -o k.html
    """

    def make(registry: Registry) -> Figure:
        from ecdreg.figures.curves import curves_figure

        return curves_figure(registry, models)

    _write(out, make)


@group.command("fourier")
def fourier(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID",
            help="By default four crystals, from the smallest to the largest bulk modulus.",
            show_default=False,
        ),
    ] = None,
    out: OutOption = Path("fourier.png"),
    recipe: RecipeOption = "metric",
) -> None:
    """Figure 9: slices above their Fourier magnitudes, which do not depend on the position of the window.

    \b
    Examples:
      ecdreg plot fourier -o figure9.png
      ecdreg plot fourier mp-1022 mp-149 --recipe paper-total
    """

    def make(registry: Registry) -> Figure:
        from ecdreg.figures.densities import fourier_figure

        return fourier_figure(registry, ids or (), recipe=recipe)

    _write(out, make)


def _write(out: Path, make: Callable[[Registry], Figure]) -> None:
    from ecdreg.figures.files import check_figure_path, write_figure

    check_figure_path(out)
    output.file(write_figure(make(open_registry()), out))
