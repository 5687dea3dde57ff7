"""Views of a crystal: they change neither the field nor the label, and never leave their crystal's row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.errors import ConfigurationError, ModelError
from registry.models import Metric, ModelVersion
from tests.train.conftest import SmallRegistry, fit_phases
from train.config.config import TrainConfig
from train.config.kinds import parse_config
from train.features.batch import Batch
from train.features.views import ONE_VIEW, Views
from train.models.building import build_network
from train.models.fitting import restore_model
from train.models.network_fitting import FittedNetwork
from train.models.networks import Tower
from train.models.optimization import predict, to_inputs


def config(**changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {"kind": "image", "target": "k_vrh", "image_widths": [8], "image_dropout": 0.0}
    settings["readout"] = {"learning_rate": 1e-2, "max_epochs": 20, "patience": 20, "batch_size": 8}
    return parse_config(settings | changes)


def kernel(**changes: Any) -> TrainConfig:
    return parse_config({"kind": "image", "target": "k_vrh", "image_regressor": "kernel"} | changes)


def seen(n: int = 40, views: int = 3, dim: int = 5) -> tuple[Batch, NDArray[np.float64]]:
    """Crystals that show their value in every view, among things that depend on the view."""
    rng = np.random.default_rng(4)
    inner = rng.normal(size=(n, 1, dim))
    features = (inner + 0.5 * rng.normal(size=(n, views, dim))).astype(np.float32)
    return Batch(n=n, features={"image": features.reshape(n, -1)}), 100 + 20 * inner[:, 0, 0]


def fitted(settings: TrainConfig, batch: Batch, values: NDArray[np.float64]) -> Any:
    *_, model = fit_phases(settings, batch, values, seed=1)
    return model


# ------------------------------------------------------------------------------ pictures


def test_augmented_pictures_hold_the_same_densities() -> None:
    pixels = torch.tensor(np.random.default_rng(0).normal(size=(16, 2, 12, 12)))
    moved = Views(augment=True).augmented(pixels)
    # Each pixel is there once: value by value in e/Å^3, so their mean and every other moment.
    assert torch.equal(moved.flatten(2).sort().values, pixels.flatten(2).sort().values)
    # The strengths of all wave vectors are there, in other directions.
    strengths = [torch.fft.fft2(p).abs().flatten(2).sort().values for p in (pixels, moved)]
    torch.testing.assert_close(strengths[1], strengths[0])
    # The channels of a picture move together, and pictures differently.
    for before, after in zip(pixels, moved, strict=True):
        first, second = before[0].flatten().argsort(), after[0].flatten().argsort()
        assert torch.equal(before[1].flatten()[first], after[1].flatten()[second])
    assert 8 <= sum(not torch.equal(a, b) for a, b in zip(pixels, moved, strict=True)) <= 16


def test_pictures_that_are_not_square_keep_their_shape() -> None:
    pixels = torch.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4).repeat(32, 1, 1, 1)
    moved = Views(augment=True).augmented(pixels)
    assert moved.shape == pixels.shape
    assert len({tuple(picture.flatten().tolist()) for picture in moved}) == 4


def test_symmetric_pictures_gain_nothing() -> None:
    y, x = np.mgrid[-1:1:16j, -1:1:16j]
    round_ = torch.tensor(np.cos(3 * np.hypot(x, y)))[None, None].repeat(8, 1, 1, 1)
    torch.testing.assert_close(Views(augment=True).augmented(round_), round_)


def test_without_augmentation_pictures_are_left_alone() -> None:
    pixels = torch.rand(3, 1, 4, 4)
    assert ONE_VIEW.augmented(pixels) is pixels


# ---------------------------------------------------------------------------------- rows


def test_training_looks_at_one_view_of_each_row_and_a_prediction_at_all() -> None:
    views = Views(3)
    features = torch.arange(24.0).reshape(4, 6)  # row, view, feature
    drawn = torch.stack([views.selected(features, training=True) for _ in range(50)])
    assert drawn.shape == (50, 4, 2)
    for row in range(4):
        assert {tuple(d.tolist()) for d in drawn[:, row]} == {tuple(v.tolist()) for v in features[row].reshape(3, 2)}
    everything = views.selected(features, training=False)
    assert everything.shape == (12, 2)
    torch.testing.assert_close(views.mean(everything, training=False), features.reshape(4, 3, 2).mean(1))
    first = Views(3, average=False).selected(features, training=False)
    assert torch.equal(first, features[:, :2])


def test_a_tower_predicts_the_mean_of_its_predictions_for_each_view() -> None:
    batch, values = seen()
    model = fitted(config(image_views=3), batch, values)
    assert isinstance(model, FittedNetwork)
    single = build_network(config(), {"image": 5}, 0)
    single.load_state_dict(model.network.state_dict())
    parts = batch.features["image"].reshape(40, 3, 5)
    each = [model.target_scaler.inverse(predict(single, to_inputs(image=parts[:, v]))) for v in range(3)]
    np.testing.assert_allclose(model.predict(batch), np.mean(each, axis=0), rtol=1e-5)
    assert model.encode(batch).shape == (40, 8)


def test_views_that_are_all_the_same_add_nothing_to_a_regressor() -> None:
    batch, values = seen(views=1)
    thrice = Batch(n=40, features={"image": np.tile(batch.features["image"], (1, 3))})
    once = fitted(kernel(), batch, values)
    same = fitted(kernel(image_views=3), thrice, values)
    np.testing.assert_allclose(same.predict(thrice), once.predict(batch), rtol=1e-5)


def test_views_that_are_all_the_same_add_nothing_to_a_network() -> None:
    batch, values = seen(views=1)
    thrice = np.tile(batch.features["image"], (1, 3))
    once = fitted(config(), batch, values).network
    network = build_network(config(image_views=3), {"image": 15}, 0)
    network.load_state_dict(once.state_dict())
    expected = predict(once, to_inputs(image=batch.features["image"]))
    np.testing.assert_allclose(predict(network, to_inputs(image=thrice)), expected, atol=1e-5)
    # It trains on the same rows as with one view.
    drawn = Views(3).selected(torch.tensor(thrice), training=True)
    assert torch.equal(drawn, torch.tensor(batch.features["image"]))


def test_scalers_are_fitted_to_the_views_of_the_rows_and_to_no_others() -> None:
    batch, values = seen()
    fit = np.arange(30)
    model = fitted(config(image_views=3), batch.take(fit), values[fit])
    assert isinstance(model.network, Tower)
    expected = batch.features["image"][fit].reshape(90, 5).mean(0)
    np.testing.assert_allclose(model.network.scale.mean.numpy(), expected, atol=1e-5)


def test_a_tower_of_views_comes_back_from_its_bytes() -> None:
    batch, values = seen()
    for settings in (config(image_views=3, image_average=False), kernel(image_views=3)):
        model = fitted(settings, batch, values)
        again = restore_model(settings, model.to_bytes(extra={}))
        np.testing.assert_allclose(again.predict(batch), model.predict(batch), rtol=1e-6)


def test_features_of_another_number_of_views_are_refused() -> None:
    with pytest.raises(ModelError, match="15 features cannot be divided into 2 views"):
        build_network(config(image_views=2), {"image": 15}, 0)
    with pytest.raises(ConfigurationError, match="views is 0"):
        config(image_views=0)
    with pytest.raises(ConfigurationError, match="augment"):
        config(image_augment="yes")


# --------------------------------------------------------------------------- experiments


def test_views_are_not_separate_rows(small: SmallRegistry) -> None:
    # The two channels as two views: a crystal is still one row, in one fold, scored once.
    plain = small.run(small.config("image"))
    viewed = small.run(small.config("image", image_views=2), name="views")
    counts = []
    for result in (plain, viewed):
        with Session(small.engine) as session:
            query = select(ModelVersion.fold, Metric.subset, Metric.n).join(Metric).distinct()
            found = session.execute(query.where(ModelVersion.experiment_id == result.experiment_id)).all()
        counts.append(sorted(map(str, found)))
    assert counts[0] == counts[1]


def test_fine_tuning_with_augmentation_trains_and_repeats_itself(small: SmallRegistry) -> None:
    settings = small.config("image", finetune_enabled=True, image_augment=True, image_views=2)
    first = small.run(settings)
    again = small.run(settings, again=True)
    assert first.holdout == again.holdout
