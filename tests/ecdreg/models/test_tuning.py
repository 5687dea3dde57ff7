"""Tuning: its first trials."""

from __future__ import annotations

import pytest

from ecdreg.models.tuning import _first_trials, _options


@pytest.mark.parametrize(
    ("recipe", "dense", "first"),
    [
        ("metric-views", False, ("pixel_statistics", "regressor", 4)),
        ("metric", True, ("efficientnet_lite0", "network", 1)),
    ],
)
def test_the_first_trial_is_the_default_of_training(recipe: str, dense: bool, first: tuple[str, str, int]) -> None:
    (config,) = _first_trials("image", ["k_vrh"], _options("image", recipe, "all", None, dense=dense))
    fields = config.to_dict()
    features = fields["features"]
    assert (features["backbone"], fields["head"]["type"], features["views"]) == first
    assert features["recipe"] == recipe
