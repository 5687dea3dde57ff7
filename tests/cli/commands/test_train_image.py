"""What ``ecdreg train image`` trains where nothing is said, and how it is told of views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text

from cli.options.training import view_options


def test_the_image_tower_is_the_one_that_cross_validation_chose(
    invoke: Callable[..., Any], crystals: dict[str, int], engine: Engine
) -> None:
    made = invoke("train", "image", "--target", "k_vrh", "--text-level", "none")
    assert made.exit_code == 0, made.stderr
    with engine.connect() as connection:
        config = connection.scalar(text("SELECT config FROM experiments WHERE name = 'image'"))
    assert (config["image_backbone"], config["image_regressor"]) == ("pixel_statistics", "kernel")
    said = invoke("predict", "image", next(iter(crystals)), "--json")
    assert said.exit_code == 0, said.stderr


@pytest.mark.parametrize(
    ("recipe", "asked", "views"),
    [("metric", None, 1), ("metric-views", None, 4), ("metric-views-fourier", None, 4), ("metric-views", 1, 1),
     ("imported", None, 1), ("metric-planes", None, 1), ("metric-planes", 3, 3)],
)  # fmt: skip
def test_views_are_those_of_the_recipe_unless_others_are_asked_for(recipe: str, asked: int | None, views: int) -> None:
    assert view_options(recipe, asked, average=True, augment=False).get("image_views", 1) == views


def test_options_ofview_options() -> None:
    assert view_options("metric", 4, average=False, augment=True) == {
        "image_views": 4,
        "image_average": False,
        "image_augment": True,
    }
