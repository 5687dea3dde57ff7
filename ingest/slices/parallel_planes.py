"""Parallel planes through a crystal's densities, for figures: one conventional cell wide, at several heights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.slices.planes import Miller
from ingest.slices.recipes import MetricRecipe
from ingest.slices.symmetry import standard_setting
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
    """Cut planes of one family, each through every kind of density.

    Parameters
    ----------
    structure
        The stored cell, as pymatgen writes it.
    densities
        By kind [e/Å^3].
    kinds
        Which of them, in order.
    miller
        The family, in the conventional cell.
    heights
        Of the planes above the central atom, in spacings of the family.
    cells
        Width of the square window, in conventional lattice parameters a.
    pixels
        Of each side.

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
    width = cells * float(np.linalg.norm(standard_setting(crystal).axes[0]))
    recipe = MetricRecipe(
        name="figure",
        planes=tuple((miller, float(height)) for height in heights),
        density_kinds=tuple(kinds),
        window=(width, width),
        pixels=(pixels, pixels),
    )
    picture = recipe.render(densities, crystal)
    return picture.reshape(len(heights), len(kinds), pixels, pixels), width
