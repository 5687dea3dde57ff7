"""The grouped Gaussian process: against its formula, on rows that need groups, and as bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from registry.errors import ArtifactError, ModelError
from train.models.regressors.catalog import REGRESSORS
from train.models.regressors.gaussian_process import GaussianProcessRegressor
from train.models.safetensors_io import pack

GROUPS = ["useful"] * 3 + ["idle"] * 40


def rows(n: int = 80, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x = np.random.default_rng(seed).normal(size=(n, 43))
    return x, 100 + 30 * np.sin(x[:, 0]) + 10 * x[:, 1] * x[:, 2]


def error(found: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    return float(np.mean((found - truth) ** 2) / truth.var())


def test_group_lengths_suppress_irrelevant_features() -> None:
    x, y = rows(150)
    unseen, truth = rows(100, seed=1)
    grouped = GaussianProcessRegressor.fit(x, y, groups=GROUPS)
    assert error(grouped.predict(unseen), truth) < 0.1
    assert error(GaussianProcessRegressor.fit(x, y).predict(unseen), truth) > 0.3
    lengths = dict(zip(grouped.groups, np.exp(grouped.parameters[: len(grouped.groups)]), strict=True))
    assert lengths["idle"] > 4 * lengths["useful"]


def test_interactions_of_two_groups_are_learned() -> None:
    # An interaction of two towers cannot be predicted by either, nor by a sum of their predictions.
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 4))
    y = x[:, 0] * x[:, 2]
    fitted = GaussianProcessRegressor.fit(x[:150], y[:150], groups=["composition"] * 2 + ["density"] * 2)
    assert error(fitted.predict(x[150:]), y[150:]) < 0.2


def test_it_solves_its_own_equations() -> None:
    x, y = rows(20)
    fitted = GaussianProcessRegressor.fit(x, y, groups=GROUPS)
    z = np.clip((x - x.mean(0)) / x.std(0), -4, 4)
    n = len(fitted.groups)
    lengths, linear, a = (
        np.exp(fitted.parameters[:n]),
        np.exp(fitted.parameters[n : 2 * n]),
        np.exp(fitted.parameters[2 * n]),
    )
    kernel, distance = np.zeros((20, 20)), np.zeros((20, 20))
    for g, columns in enumerate((slice(0, 3), slice(3, 43))):
        block = z[:, columns] / np.sqrt(z[:, columns].shape[1])
        kernel += linear[g] ** 2 * block @ block.T
        distance += np.sum((block[:, None] - block[None]) ** 2, axis=-1) / lengths[g] ** 2
    kernel += a**2 * np.exp(-distance / 2)
    expected = y.mean() + y.std() * kernel @ fitted.weights
    np.testing.assert_allclose(fitted.predict(x), expected, rtol=1e-5)


def test_shuffled_values_are_not_predictable() -> None:
    x, y = rows(150)
    shuffled = np.random.default_rng(5).permutation(y)
    unseen, truth = rows(100, seed=1)
    assert error(GaussianProcessRegressor.fit(x, shuffled, groups=GROUPS).predict(unseen), truth) > 0.9


def test_the_same_rows_give_the_same_bytes_and_come_back() -> None:
    x, y = rows(40)
    kind = REGRESSORS["gaussian-process"]
    assert kind.joins_features
    fitted = kind.fit(x, y, 7, GROUPS)
    data = fitted.to_bytes()
    assert kind.fit(x, y, 7, GROUPS).to_bytes() == data
    np.testing.assert_array_equal(kind.from_bytes(data).predict(x[:5]), fitted.predict(x[:5]))


def test_predictions_are_in_the_unit_of_the_values() -> None:
    x, y = rows(40)
    fitted = GaussianProcessRegressor.fit(x, y, groups=GROUPS)
    shifted = GaussianProcessRegressor.fit(1e3 * x - 5, 1000 + 2 * y, groups=GROUPS)
    np.testing.assert_allclose(shifted.predict(1e3 * x[:9] - 5), 1000 + 2 * fitted.predict(x[:9]), rtol=1e-4)


def test_constant_features_are_ignored() -> None:
    x, y = rows(40)
    constant = np.column_stack([x, np.full(40, 3.0)])
    fitted = GaussianProcessRegressor.fit(constant, y, groups=[*GROUPS, "constant"])
    assert fitted.groups == ("useful", "idle")
    woken = constant[:3].copy()
    woken[:, -1] = 100.0
    np.testing.assert_array_equal(fitted.predict(woken), fitted.predict(constant[:3]))
    flat = GaussianProcessRegressor.fit(np.ones((5, 2)), np.arange(5.0))
    assert flat.predict(np.zeros((2, 2))).tolist() == [2.0, 2.0]


def test_more_rows_than_are_tuned_on_are_all_used(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = rows(120)
    unseen, truth = rows(100, seed=1)
    monkeypatch.setattr("train.models.regressors.gaussian_process._MAX_TUNING_ROWS", 60)
    fitted = GaussianProcessRegressor.fit(x, y, seed=1, groups=GROUPS)
    assert len(fitted.landmarks) == 120
    assert error(fitted.predict(unseen), truth) < 0.25
    assert GaussianProcessRegressor.fit(x, y, seed=2, groups=GROUPS).to_bytes() != fitted.to_bytes()
    monkeypatch.setattr("train.models.regressors.gaussian_process._MAX_ROWS", 100)
    with pytest.raises(ModelError, match="too many"):
        GaussianProcessRegressor.fit(x, y)


def test_invalid_arguments_and_bytes_raise() -> None:
    x, y = rows(20)
    with pytest.raises(ModelError, match=r"give \(N, 43\)"):
        GaussianProcessRegressor.fit(x, y).predict(x[:, :3])
    with pytest.raises(ModelError, match="group names"):
        GaussianProcessRegressor.fit(x, y, groups=["a"])
    with pytest.raises(ModelError, match="finite"):
        GaussianProcessRegressor.fit(np.full_like(x, np.nan), y)
    with pytest.raises(ArtifactError):
        GaussianProcessRegressor.from_bytes(pack({"x": torch.zeros(1)}, kind="gaussian-process", about={}))
