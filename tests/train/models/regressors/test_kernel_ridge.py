"""Kernel ridge regression: against the formula, and as bytes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from registry.errors import ArtifactError, ModelError
from train.models.regressors.catalog import REGRESSORS
from train.models.regressors.kernel_ridge import KernelRegressor, _distances, _matern
from train.models.safetensors_io import pack


def rows(n: int = 80, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x = np.random.default_rng(seed).normal(size=(n, 6))
    return x, 100 + 30 * np.sin(x[:, 0]) + 10 * x[:, 1] * x[:, 2]


def test_nonlinear_functions_are_learned() -> None:
    x, y = rows(400)
    unseen, truth = rows(100, seed=1)
    found = KernelRegressor.fit(x, y).predict(unseen)
    assert np.mean((found - truth) ** 2) < 0.15 * truth.var()


def test_the_left_out_errors_are_those_of_leaving_out() -> None:
    # The closed form that chooses length and ridge, against fitting n times.
    rng = np.random.default_rng(2)
    z, y, noise = rng.normal(size=(12, 3)).astype(np.float32), rng.normal(size=12), 0.1
    kernel = _matern(_distances(z, z), 2.0) + noise * np.eye(12)
    inverse = np.linalg.inv(kernel)
    for i in range(12):
        rest = np.delete(np.arange(12), i)
        alone = kernel[i, rest] @ np.linalg.solve(kernel[np.ix_(rest, rest)], y[rest])
        assert (inverse @ y)[i] / inverse[i, i] == pytest.approx(y[i] - alone)


def test_the_same_rows_give_the_same_bytes_and_come_back() -> None:
    x, y = rows()
    fitted = KernelRegressor.fit(x, y)
    data = fitted.to_bytes()
    assert KernelRegressor.fit(x, y).to_bytes() == data
    np.testing.assert_array_equal(REGRESSORS["kernel"].from_bytes(data).predict(x[:5]), fitted.predict(x[:5]))
    np.testing.assert_array_equal(REGRESSORS["kernel"].fit(x, y, 7, ["all"] * 6).predict(x[:5]), fitted.predict(x[:5]))


def test_values_are_in_their_unit() -> None:
    x, y = rows()
    fitted = KernelRegressor.fit(x, y)
    shifted = KernelRegressor.fit(x, 1000 + 2 * y)
    np.testing.assert_allclose(shifted.predict(x[:9]), 1000 + 2 * fitted.predict(x[:9]), rtol=1e-9)


def test_nearly_constant_features_are_clamped() -> None:
    x, y = rows()
    x = np.column_stack([x, np.r_[1e-6, np.zeros(len(x) - 1)]])
    fitted = KernelRegressor.fit(x, y)
    woken = x[3:4].copy()
    woken[0, -1] = 1.0
    assert abs(fitted.predict(woken)[0] - fitted.predict(x[3:4])[0]) < y.std()


def test_invalid_rows_and_bytes_raise() -> None:
    x, y = rows()
    with pytest.raises(ModelError, match=r"give \(N, 6\)"):
        KernelRegressor.fit(x, y).predict(x[:, :3])
    with pytest.raises(ModelError, match="finite"):
        KernelRegressor.fit(np.full_like(x, np.nan), y)
    with pytest.raises(ArtifactError):
        KernelRegressor.from_bytes(pack({}, kind="kernel", about={}))
