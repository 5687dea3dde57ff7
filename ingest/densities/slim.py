"""Reduced densities for slim ingestion: only the kinds that recipes need, at most 60 points along an axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ingest.densities.regridding import regrid
from registry.crystals import DensityData

if TYPE_CHECKING:
    from ingest.slices.recipes import ImageRecipe

__all__ = ["BYTES_PER_CRYSTAL", "MAX_POINTS", "slim_densities"]

MAX_POINTS = 60
"""Maximum number of grid points along a lattice vector; the published images use 60 x 60 x 60."""

BYTES_PER_CRYSTAL = 3 * 4 * MAX_POINTS**3
"""Maximum size of three kinds in float32, before compression."""


def slim_densities(densities: Iterable[DensityData], recipes: Sequence[ImageRecipe]) -> list[DensityData]:
    """Reduce densities to the kinds that recipes need and to small grids.

    The reduction truncates the Fourier series (:func:`ingest.densities.regridding.regrid`). The
    mean, and with it the number of electrons, is conserved up to the rounding to float32; waves
    shorter than twice the new grid spacing are lost. Slices have to be rendered before.

    Parameters
    ----------
    densities
        Densities on their native grids [e/Å^3].
    recipes
        Recipes of the ingest.

    Returns
    -------
    list of DensityData
        Float32 values, at most 60 points along each vector; ``origin`` contains ``slim`` and
        ``native_grid``.
    """
    needed = {kind for recipe in recipes for kind in (*recipe.kinds, *recipe.channel_kinds)}
    reduced = []
    for density in densities:
        if density.kind not in needed:
            continue
        native = [int(points) for points in density.values.shape]
        first, second, third = (min(points, MAX_POINTS) for points in native)
        values = regrid(density, (first, second, third)).values.astype(np.float32)
        origin = {**(density.origin or {}), "slim": True, "native_grid": native}
        reduced.append(replace(density, values=values, origin=origin))
    return reduced
