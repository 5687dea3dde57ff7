"""Image recipes in the registry: their names, and the checksums of their parameters as versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.errors import NotFoundError
from registry.models import ImageRecipe, SliceImage

__all__ = ["ensure_recipes", "find_recipe", "recipe_sha256"]


def recipe_sha256(parameters: Mapping[str, Any]) -> str:
    """Version of an image recipe: the checksum of its parameters, independent of their order.

    Raises
    ------
    ValueError
        If a parameter is not finite, or not a JSON value.
    """
    return json_sha256(parameters)


def ensure_recipes(
    session: Session, recipes: Mapping[str, tuple[str, Mapping[str, Any], str | None]]
) -> dict[str, int]:
    """Ids of recipes with these parameters; new recipes are added. One statement if all of them exist.

    Parameters
    ----------
    recipes
        (name, parameters, unit) of each recipe, by :func:`recipe_sha256` of the parameters, which identify it. The
        name is that of a new recipe; the unit of the pixels is None for imported and fourier images.

    Returns
    -------
    dict
        Id by checksum.
    """
    query = select(ImageRecipe.sha256, ImageRecipe.id).where(ImageRecipe.sha256.in_(recipes))
    ids = dict(session.execute(query).all())
    missing = [
        {"name": name, "parameters": dict(parameters), "unit": unit, "sha256": sha256}
        for sha256, (name, parameters, unit) in recipes.items()
        if sha256 not in ids
    ]
    if missing:
        session.execute(insert(ImageRecipe).on_conflict_do_nothing(), missing)
        ids = dict(session.execute(query).all())
    return ids


def find_recipe(session: Session, name: str) -> ImageRecipe:
    """The newest recipe with this name that has images.

    Raises
    ------
    NotFoundError
        If there is none; the message names the existing ones.
    """
    with_images = exists().where(SliceImage.recipe_id == ImageRecipe.id)
    recipe = session.scalars(
        select(ImageRecipe).where(ImageRecipe.name == name, with_images).order_by(ImageRecipe.id.desc()).limit(1)
    ).one_or_none()
    if recipe is None:
        names = session.scalars(select(ImageRecipe.name).where(with_images).distinct().order_by(ImageRecipe.name)).all()
        hint = f"there are: {', '.join(names)}" if names else "the registry has no images; `ecdreg ingest` creates them"
        raise NotFoundError(f"no images of recipe {name!r}; {hint}")
    return recipe
