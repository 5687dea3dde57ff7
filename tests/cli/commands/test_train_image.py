"""Defaults of ``ecdreg train image``, and the views of each recipe."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, text

from ecdreg.models.training import views_of
from tests.conftest import Invoke
from train.models.options import ModelOptions, build_config


def test_the_image_tower_is_the_one_that_cross_validation_chose(
    invoke: Invoke, crystals: dict[str, int], engine: Engine
) -> None:
    made = invoke("train", "image", "--target", "k_vrh", "--text-level", "none")
    assert made.exit_code == 0, made.stderr
    with engine.connect() as connection:
        config = connection.scalar(text("SELECT config FROM experiments WHERE name = 'image'"))
    assert (config["features"]["backbone"], config["head"]["name"]) == ("pixel_statistics", "kernel")
    predicted = invoke("predict", "image", next(iter(crystals)), "--json")
    assert predicted.exit_code == 0, predicted.stderr


@pytest.mark.parametrize(
    ("recipe", "views"),
    [("metric", 1), ("metric-views", 4), ("metric-views-fourier", 4), ("metric-planes", 1), ("imported", None)],
)
def test_recipes_have_views(recipe: str, views: int | None) -> None:
    assert views_of(recipe) == views


@pytest.mark.parametrize(
    ("options", "views"),
    [((), 4), (("--views", "1"), 1), (("--views", "2", "--first-view", "--augment", "--finetune"), 2)],
)
def test_views_are_those_of_the_recipe_unless_others_are_given(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, engine: Engine, options: tuple[str, ...], views: int
) -> None:
    given: list[ModelOptions] = []

    def build(kind: str, target: str, options: ModelOptions) -> Any:
        given.append(options)
        return build_config(kind, target, options)

    monkeypatch.setattr("train.models.options.build_config", build)
    failed = invoke("train", "image", "--target", "k_vrh", "--recipe", "metric-views", *options)
    assert "no images of recipe 'metric-views'" in failed.stderr
    assert given[-1].views == views
    named = (False, True) if "--first-view" in options else (None, None)
    assert (given[-1].average_views, given[-1].augment) == named
