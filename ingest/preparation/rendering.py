"""Slices of a crystal for the recipes of an ingest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingest.preparation.outcome import Problems
from registry.crystals import DensityData, SliceData

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

    from ingest.slices.recipes import ImageRecipe

__all__ = ["render_slices"]


def render_slices(
    recipes: list[ImageRecipe], densities: list[DensityData], structure: Structure | None, *, problems: Problems
) -> list[SliceData]:
    """Render the slices of all recipes.

    Parameters
    ----------
    recipes
        Recipes of the ingest.
    densities
        Densities of the crystal [e/Å^3].
    structure
        Structure in the cell of the densities; None: there is no density.
    problems
        Receives a line for each recipe that cannot be rendered.
    """
    if not densities or structure is None:
        if recipes:
            problems.add(f"no density, so no slice ({', '.join(recipe.name for recipe in recipes)})")
        return []
    by_kind = {density.kind: density for density in reversed(densities)}
    slices = []
    for recipe in recipes:
        pixels = problems.attempt(f"recipe {recipe.name}", lambda recipe=recipe: recipe.render(by_kind, structure))  # type: ignore[misc]
        if pixels is not None:
            inputs = tuple((kind, by_kind[kind].level_of_theory) for kind in recipe.channel_kinds)
            slices.append(SliceData(recipe.name, recipe.parameters(), recipe.unit, pixels, inputs))
    return slices
