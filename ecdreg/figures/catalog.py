"""Catalog of the figures: name and function of each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from ecdreg.figures.composition import composition_figure
from ecdreg.figures.crystal_map import check_colour, crystal_map, map_figure
from ecdreg.figures.curves import curves_figure
from ecdreg.figures.densities import density_figure, fourier_figure
from ecdreg.figures.files import check_figure_path, write_figure
from ecdreg.figures.scores import scores_figure
from registry.catalog import Catalog
from registry.properties import DEFAULT_COLOUR

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection

__all__ = ["FIGURES", "plot"]


def plot(registry: RegistryConnection, name: str, path: Path | None = None, **options: object) -> Figure:
    """Draw a figure, and write it to a file if a path is given.

    Parameters
    ----------
    registry
        An open registry; only read.
    name
        Entry of :data:`FIGURES`.
    path
        PNG, SVG, PDF or HTML by its ending; None: no file.
    **options
        Other arguments of the function in :data:`FIGURES`.

    Raises
    ------
    UnknownNameError
        If there is no such figure.
    ConfigurationError
        If the file cannot be written.
    """
    draw = FIGURES[name]
    if path is not None:
        check_figure_path(path)
    figure = draw(registry, **options)
    if path is not None:
        write_figure(figure, path)
    return figure


def _map(
    registry: RegistryConnection,
    encoder: str | None = None,
    *,
    color: str = DEFAULT_COLOUR,
    method: str = "pca",
    where: str | None = None,
    seed: int = 0,
) -> Figure:
    check_colour(color)
    return map_figure(crystal_map(registry, encoder, method=method, where=where, seed=seed), color)


FIGURES: Catalog[Callable[..., Figure]] = Catalog("figures")
"""Function of each figure; its first argument is the registry."""

FIGURES.add("scores", scores_figure)
FIGURES.add("composition", composition_figure)
FIGURES.add("density", density_figure)
FIGURES.add("curves", curves_figure)
FIGURES.add("fourier", fourier_figure)
FIGURES.add("map", _map)
