"""``ecdreg plot map``: the vectors of an encoder in a plane."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import output
from cli.options.common import EncoderOption, SeedOption, WhereOption
from cli.options.sessions import open_session

__all__ = ["plot_map"]


def plot_map(
    out: Annotated[
        list[Path] | None,
        typer.Option("-o", "--output", help="File to draw into; may be repeated. [map.png]", show_default=False),
    ] = None,
    encoder: EncoderOption = None,
    color: Annotated[
        str, typer.Option("--color", metavar="NAME", help="A property, or prototype or space_group_symbol.")
    ] = "k_vrh",
    method: Annotated[str, typer.Option("--method", metavar="NAME", help="pca, or umap (needs umap-learn).")] = "pca",
    where: WhereOption = None,
    seed: SeedOption = 0,
) -> None:
    """Draw a map of the crystals by an encoder: near points are alike, the colour says a property.

    A picture by the file's ending (PNG, SVG, PDF); an HTML file is a page of its own, without a request to anybody,
    that tells of a point on hovering, finds formulas and elements, zooms, and colours by another property.
    `ecdreg encoders add pettifor` makes the encoder pettifor; `ecdreg encoders list` shows those that there are.

    \b
    Examples:
      ecdreg plot map -o map.png -o map.html
      ecdreg plot map --encoder pettifor --color prototype -o prototypes.png
      ecdreg plot map --encoder efficientnet_lite0:metric --method umap --color efermi -o map.html
    """
    from ecdreg.figures.canvas import check_path, style, write
    from ecdreg.figures.crystal_map import CrystalMap, check_colour, draw, page, read_crystals
    from registry.encoders import resolve_encoder
    from registry.errors import ConfigurationError, QueryError
    from train.analysis.projection import METHODS, project

    paths = out or [Path("map.png")]
    for path in paths:
        check_path(path)
    check_colour(color)
    if method not in METHODS:
        raise ConfigurationError(f"no projection {method!r}; choose from {', '.join(METHODS)}")
    with open_session() as session:
        chosen = resolve_encoder(session, encoder)
        name = chosen.name
        crystals, vectors = read_crystals(session, chosen.id, where)
    if len(crystals) < 3:
        raise QueryError(f"{len(crystals)} crystals have a vector of {name} and pass the filter; a map needs 3")
    chart = CrystalMap(name, project(vectors, method=method, seed=seed), crystals)
    for path in paths:
        if path.suffix.lower() == ".html":
            try:
                path.write_text(page(chart, color), encoding="utf-8")
            except OSError as error:
                raise ConfigurationError(f"cannot write {path}: {error.strerror}; choose another file") from error
        else:
            with style():
                write(draw(chart, color), path, title=f"Map of {name}")
        output.line(f"{path} ({path.stat().st_size / 1024:.0f} kB)")
    output.note(chart.projection.told)
