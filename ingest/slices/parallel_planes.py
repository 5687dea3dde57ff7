"""Parallel planes through a crystal's densities at several heights, for figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.slices.planes import Miller
from ingest.slices.recipes import MetricRecipe
from ingest.slices.symmetry import conventional_frame
from registry.crystals import DensityData

__all__ = ["parallel_planes"]


def parallel_planes(
    structure: Mapping[str, Any],
    densities: Mapping[str, DensityData],
    *,
    kinds: Sequence[str],
    miller: Miller = (0, 0, 1),
    heights: Sequence[float],
    cells: float = 1.0,
    pixels: int = 160,
) -> tuple[NDArray[np.float32], float]:
    """Render parallel planes through every kind of density.

    Parameters
    ----------
    structure
        The stored cell, pymatgen's ``Structure.as_dict()``.
    densities
        Densities by kind [e/Å^3].
    kinds
        Rendered kinds, in order.
    miller
        Miller indices of the planes in the conventional cell.
    heights
        Heights of the planes above the central atom, in units of the plane spacing.
    cells
        Width of the square window, in units of the conventional lattice parameter a.
    pixels
        Number of pixels along each side.

    Returns
    -------
    tuple
        Pixels, shape (heights, kinds, pixels, pixels) [e/Å^3], and the width of the window [Å].

    Raises
    ------
    InputError
        As :meth:`ingest.slices.recipes.ImageRecipe.render`.
    """
    from pymatgen.core.structure import Structure

    crystal = Structure.from_dict(dict(structure))
    width = cells * float(np.linalg.norm(conventional_frame(crystal).axes[0]))
    recipe = MetricRecipe(
        name="figure",
        planes=tuple((miller, float(height)) for height in heights),
        density_kinds=tuple(kinds),
        window=(width, width),
        pixels=(pixels, pixels),
    )
    image = recipe.render(densities, crystal)
    return image.reshape(len(heights), len(kinds), pixels, pixels), width
