"""Catalog of the figures: name and function of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from ecdreg.figures.composition import composition_figure
from ecdreg.figures.crystal_map import check_colour, crystal_map, map_figure
from ecdreg.figures.curves import curves_figure
from ecdreg.figures.densities import density_figure, fourier_figure
from ecdreg.figures.scores import scores_figure
from registry.catalog import Catalog

if TYPE_CHECKING:
    from ecdreg.registry import Registry

__all__ = ["FIGURES"]


def _map(
    registry: Registry,
    encoder: str | None = None,
    *,
    colour: str = "k_vrh",
    method: str = "pca",
    where: str | None = None,
    seed: int = 0,
) -> Figure:
    check_colour(colour)
    return map_figure(crystal_map(registry, encoder, method=method, where=where, seed=seed), colour)


FIGURES: Catalog[Callable[..., Figure]] = Catalog("figures")
"""Function of each figure; its first argument is the registry."""

FIGURES.add("scores", scores_figure)
FIGURES.add("composition", composition_figure)
FIGURES.add("density", density_figure)
FIGURES.add("curves", curves_figure)
FIGURES.add("fourier", fourier_figure)
FIGURES.add("map", _map)
