"""``ecdreg plot map``: the vectors of an encoder in a plane."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.connections import open_registry
from cli.options.arguments import EncoderOption, SeedOption, WhereOption
from registry.properties import DEFAULT_COLOUR

__all__ = ["plot_map"]


def plot_map(
    out: Annotated[
        list[Path] | None,
        typer.Option("-o", "--output", help="File to write; may be repeated. [map.png]", show_default=False),
    ] = None,
    encoder: EncoderOption = None,
    color: Annotated[
        str, typer.Option("--color", metavar="NAME", help="A property, or prototype or space_group_symbol.")
    ] = DEFAULT_COLOUR,
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="pca, or umap (needs umap-learn).")] = "pca",
    where: WhereOption = None,
    seed: SeedOption = 0,
) -> None:
    """Draw a map of the crystals by an encoder: near points are similar crystals, the colour is a property.

    PNG, SVG or PDF by the ending of the file. An HTML file is a self-contained interactive page: it shows the crystal
    of a point, finds formulas and elements, zooms, and colours by another property.
    `ecdreg encoders add pettifor` adds the encoder pettifor; `ecdreg encoders list` lists the encoders.

    \b
    Examples:
      ecdreg plot map -o map.png -o map.html
      ecdreg plot map --encoder pettifor --color prototype -o prototypes.png
      ecdreg plot map --encoder efficientnet_lite0:metric --method umap --color efermi -o map.html
    """
    from ecdreg.figures.crystal_map import check_colour, crystal_map, map_figure
    from ecdreg.figures.files import check_figure_path, write_figure

    paths = out or [Path("map.png")]
    for path in paths:
        check_figure_path(path)
    check_colour(color)
    chart = crystal_map(open_registry(), encoder, method=method, where=where, seed=seed)
    figure = map_figure(chart, color)
    for path in paths:
        output.file(write_figure(figure, path))
    output.note(chart.projection.description)
