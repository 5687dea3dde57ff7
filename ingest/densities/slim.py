"""Slim ingestion: of every density only what the recipes need, on a grid of at most 60 points an axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from registry.crystals import DensityData

if TYPE_CHECKING:
    from ingest.slices.recipes import ImageRecipe

__all__ = ["BYTES_PER_CRYSTAL", "MAX_POINTS", "slimmed"]

MAX_POINTS = 60
"""Most grid points along a lattice vector; the published pictures are made of 60 x 60 x 60."""

BYTES_PER_CRYSTAL = 3 * 4 * MAX_POINTS**3
"""Most that three kinds of float32 take, before they are compressed."""


def slimmed(densities: Iterable[DensityData], recipes: Sequence[ImageRecipe]) -> list[DensityData]:
    """The densities that recipes are made of, small.

    Fourier-truncated (:func:`ingest.densities.checks.regrid`), so that the mean, and with it the number of
    electrons, stays what it is but for the rounding to float32; waves shorter than twice the new
    grid's spacing are lost. Slices are to be made before.

    Parameters
    ----------
    densities
        At their native grids [e/Å^3].
    recipes
        What is wanted.

    Returns
    -------
    list of DensityData
        float32, at most 60 points along each vector; ``origin`` says ``slim`` and ``native_grid``.
    """
    from ingest.densities.checks import regrid

    wanted = {kind for recipe in recipes for kind in (*recipe.kinds, *recipe.channel_kinds)}
    small = []
    for density in densities:
        if density.kind not in wanted:
            continue
        native = [int(points) for points in density.values.shape]
        first, second, third = (min(points, MAX_POINTS) for points in native)
        values = regrid(density, (first, second, third)).values.astype(np.float32)
        origin = {**(density.origin or {}), "slim": True, "native_grid": native}
        small.append(replace(density, values=values, origin=origin))
    return small
