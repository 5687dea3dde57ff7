"""Shares sum to what they divide: efficiency of Shapley values, completeness of integrated gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.crystals import CrystalData
from registry.errors import IncompatibleInputError, ModelError
from registry.model_store import resolve_model
from tests.train.conftest import RECIPE, SmallRegistry
from train.analysis.attribution import Effort, Outer, integrated_gradients, shapley
from train.analysis.explanation import Explanation, _scaled, _unscaled, explain
from train.config.kinds import parse_config
from train.prediction.predictor import Predictor


@given(st.integers(1, 9), st.integers(0, 1000))
@settings(max_examples=40)
def test_shapley_values_are_efficient_symmetric_and_ignore_dummies(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=2**n)
    powers = 2 ** np.arange(n)

    def value(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
        known = masks.copy()
        known[:, -1] = False  # the last part does nothing
        return np.asarray(table[known @ powers])

    found = shapley(value, n, orders=8, seed=seed)
    assert found.values.sum() == pytest.approx(found.full - found.empty)
    assert found.values[-1] == pytest.approx(0.0)


@pytest.mark.parametrize("n", [5, 10])
def test_shapley_values_of_a_game_that_is_known(n: int) -> None:
    # Additive parts, and a bonus of 6 for the first three together: 2 for each of them.
    weights = np.arange(n, dtype=float)
    found = shapley(lambda m: m @ weights + 6.0 * m[:, :3].all(axis=1), n, orders=400)
    expected = weights + np.where(np.arange(n) < 3, 2.0, 0.0)
    assert found.values == pytest.approx(expected, abs=1e-9 if n == 5 else 0.3)
    assert (np.abs(found.values - expected) <= 4 * found.error + 1e-9).all()


def test_an_attribution_needs_parts() -> None:
    with pytest.raises(ModelError, match="at least one part"):
        shapley(lambda masks: np.zeros(len(masks)), 0)


@pytest.mark.parametrize("outer", [None, lambda t: np.where(t > 5, 3 * t, t)])
def test_integrated_gradients_are_complete(outer: Outer | None) -> None:
    start, end = torch.tensor([0.0, 1.0, -1.0]), torch.tensor([2.0, 1.0, 3.0])
    path = integrated_gradients(lambda x: (x**2 * torch.tensor([1.0, 5.0, 1.0])).sum(1), start, end, outer=outer,
                                tolerance=1e-3, relative_tolerance=0.0)  # fmt: skip
    assert abs(path.gap) <= 1e-3
    assert path.values[1] == 0.0  # what does not move has no share
    if outer is None:
        assert path.values == pytest.approx([4.0, 0.0, 8.0], abs=1e-3)
        assert (path.start, path.end) == (6.0, 18.0)
    else:
        assert path.values.sum() == pytest.approx(54.0 - 18.0, abs=1e-3)


def test_steps_are_halved_where_the_kinks_are() -> None:
    path = integrated_gradients(
        lambda x: 100 * torch.relu(x - 0.9).sum(1) + torch.sin(3 * x).sum(1),
        torch.zeros(2),
        torch.ones(2),
        tolerance=1e-4,
        relative_tolerance=0.0,
        effort=Effort(steps=7, batch=2),
    )
    assert abs(path.gap) <= 1e-4
    assert path.values == pytest.approx([10 + np.sin(3)] * 2, abs=1e-4)
    assert path.steps < 60


def test_the_remaining_error_is_reported() -> None:
    rough = integrated_gradients(
        lambda x: torch.sin(40 * x).sum(1),
        torch.zeros(1),
        torch.ones(1),
        tolerance=1e-12,
        relative_tolerance=0.0,
        effort=Effort(steps=4, max_gradients=20),
    )
    assert rough.gap != 0
    assert rough.values.sum() - (rough.end - rough.start) == pytest.approx(rough.gap)


def why(small: SmallRegistry, model: str, source_id: str) -> Explanation:
    with Session(small.engine) as session:
        (found,) = resolve_model(session, model)
        session.expunge_all()
    return explain(small.engine, small.settings, found, small.revisions[source_id])


@pytest.mark.parametrize("join", ["readout", "ridge"])
def test_a_stack_is_explained_without_remainder(small: SmallRegistry, join: str) -> None:
    config = small.config("stacked")
    if join != "readout":
        kept = small.fields("stacked")
        for name in ("stacked_widths", "stack_features"):
            del kept[name]
        config = parse_config(kept | {"join": join})
    small.run(config)
    for source_id in ("mp-1", "mp-7"):
        found = why(small, "stacked:k_vrh", source_id)
        assert found.modalities.names == ("image", "text")
        assert found.modalities.values.sum() == pytest.approx(found.predicted - found.modalities.empty, abs=1e-3)
        assert found.pixels is not None
        assert found.pixels.method == "integrated gradients"
        assert found.pixels.full == pytest.approx(found.predicted, rel=1e-4)
        assert found.pixels.values.shape == found.pixels.image.shape
        assert abs(found.pixels.gap) <= max(0.5, 0.05 * abs(found.pixels.full - found.pixels.empty))
        assert found.words is not None
        assert found.text is not None
        assert " ".join(found.words.names) == found.text
        assert found.words.full == pytest.approx(found.predicted, rel=1e-4)
        assert found.words.values.sum() == pytest.approx(found.words.full - found.words.empty, abs=1e-3)
        assert (found.fold is not None) == (found.subset == "validation")


@pytest.mark.parametrize("regressor", ["image", "text", None])
def test_a_stack_whose_towers_are_fine_tuned(
    small: SmallRegistry, crystal_of: Callable[..., CrystalData], regressor: str | None
) -> None:
    """What a part is replaced by reaches the model, whichever way its tower reads it: as it is, or its features."""
    base = small.fields("stacked", finetune_enabled=True)
    if regressor is None:
        config = parse_config(base)
    else:
        other = "text" if regressor == "image" else "image"
        own = ("kind", "target", "image_backbone", "image_size", "text_backbone", "readout", "finetune",
               "finetune_enabled", f"{other}_widths")  # fmt: skip
        changes = {"join": "ridge", f"{regressor}_regressor": "kernel"}
        config = parse_config({name: base[name] for name in own} | changes)
    small.run(config)
    with Session(small.engine) as session:
        (model,) = resolve_model(session, "stacked:k_vrh")
        predictor = Predictor.load(session, small.settings, model, folds=False)
        member = text(
            "SELECT split_part(source_id, ':', 2) FROM split_members WHERE split_id = :id AND subset = :part"
            " ORDER BY source_id"
        )
        cv, holdout = (
            list(session.scalars(member, {"id": model.experiment.split_id, "part": part})) for part in ("cv", "holdout")
        )
    found = why(small, "stacked:k_vrh", holdout[0])
    own_crystal = crystal_of(int(holdout[0][3:]) - 1)
    kinds = RECIPE["kinds"]
    others = np.stack([crystal_of(int(ident[3:]) - 1).slices[0].pixels for ident in cv])
    scaled = np.stack([_scaled(others[:, i], kind) for i, kind in enumerate(kinds)], axis=1).mean(axis=0)
    mean = np.stack([_unscaled(torch.as_tensor(scaled[i]), kind).numpy() for i, kind in enumerate(kinds)])
    grey = replace(own_crystal, slices=(replace(own_crystal.slices[0], pixels=mean),))
    mute = replace(own_crystal, descriptions=(replace(own_crystal.descriptions[0], text="."),))
    full, unseen, unread_text = (one.value for one in predictor.predict([own_crystal, grey, mute]))
    assert found.predicted == pytest.approx(full, rel=1e-4)
    assert found.pixels is not None
    assert found.words is not None
    assert (found.pixels.method == "integrated gradients") == (regressor != "image")
    assert found.pixels.full == pytest.approx(full, rel=1e-4)
    assert found.pixels.empty == pytest.approx(unseen, rel=1e-3)
    assert abs(full - unseen) > 0.5  # the picture matters: else shares of nothing would do
    assert found.pixels.values.sum() == pytest.approx(full - unseen, abs=max(0.5, 0.05 * abs(full - unseen)))
    assert found.words.full == pytest.approx(full, rel=1e-4)
    assert found.words.empty == pytest.approx(unread_text, rel=1e-4)
    if regressor == "text":  # the other texts weigh little in their joins
        assert abs(full - unread_text) > 0.1
    assert found.words.values.sum() == pytest.approx(full - unread_text, abs=1e-2)
    assert found.modalities.values.sum() == pytest.approx(full - found.modalities.empty, abs=1e-2)


def test_a_composition_is_explained_by_its_properties(small: SmallRegistry) -> None:
    small.run(small.config("baseline-magpie"))
    found = why(small, "baseline-magpie:k_vrh", "mp-3")
    parts = found.features["composition"]
    assert len(parts.names) == 22
    assert "MeltingT" in parts.names
    assert parts.values.sum() == pytest.approx(parts.full - parts.empty)
    assert parts.full == pytest.approx(found.predicted)


def test_a_mean_baseline_has_no_explanation(small: SmallRegistry) -> None:
    small.run(small.config("baseline-mean"))
    with pytest.raises(IncompatibleInputError, match="reads no input"):
        why(small, "baseline-mean:k_vrh", "mp-3")


def test_patches_sum_to_the_difference_and_have_no_channels(small: SmallRegistry) -> None:
    """A regressor has no gradients in pixels; patches go through all channels at once."""
    base = small.fields("image")
    own = ("kind", "target", "image_backbone", "image_size")
    config = parse_config({name: base[name] for name in own} | {"image_regressor": "kernel"})
    small.run(config)
    one = why(small, "image:k_vrh", "mp-1")
    assert one.pixels is not None
    assert one.pixels.method == "Shapley values of patches"
    assert one.pixels.by_channel is None
    assert abs(one.pixels.full - one.pixels.empty) > 1
    assert one.pixels.values.sum() == pytest.approx(one.pixels.full - one.pixels.empty)
    np.testing.assert_allclose(one.pixels.values[0], one.pixels.values[1])
    small.run(small.config("image"))
    dense = why(small, "image:k_vrh@2", "mp-1")
    assert dense.pixels is not None
    assert dense.pixels.by_channel is not None
    assert sum(dense.pixels.by_channel.values()) == pytest.approx(dense.pixels.values.sum())
