from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from registry.errors import ModelError
from train.models.scalers import StandardScaler


@given(arrays(np.float64, st.tuples(st.integers(2, 20), st.integers(1, 5)), elements=st.floats(-1e6, 1e6, width=32)))
def test_fitted_rows_come_out_standardised_and_come_back(rows: np.ndarray) -> None:
    scaler = StandardScaler.fit(rows)
    z = scaler.transform(rows)
    varying = scaler.scale != 1.0
    np.testing.assert_allclose(z.mean(0)[varying], 0, atol=1e-6)
    np.testing.assert_allclose(z.std(0)[varying], 1, rtol=1e-6)
    np.testing.assert_allclose(scaler.inverse(z), rows, atol=1e-6 * max(1.0, np.abs(rows).max()))


def test_a_constant_column_becomes_zero_without_amplification() -> None:
    rows = np.array([[0.1, 1.0], [0.1, 3.0], [0.1, 5.0]])
    scaler = StandardScaler.fit(rows)
    np.testing.assert_allclose(scaler.transform(rows)[:, 0], 0, atol=1e-15)
    assert scaler.transform(np.array([[0.6, 3.0]]))[0, 0] == pytest.approx(0.5)


def test_a_target_has_one_mean_and_one_scale() -> None:
    scaler = StandardScaler.fit([1.0, 3.0])
    assert scaler.mean.shape == ()
    assert scaler.transform([1.0, 2.0, 3.0]).tolist() == [-1.0, 0.0, 1.0]


def test_only_the_given_rows_count() -> None:
    rows = np.arange(10.0)
    assert StandardScaler.fit(rows[:5]).mean == 2.0


def test_the_scaler_does_not_change_with_its_rows() -> None:
    mean, scale = np.zeros(2), np.ones(2)
    scaler = StandardScaler(mean, scale)
    mean += 5
    assert (scaler.mean == 0).all()


def test_dict_keeps_every_bit() -> None:
    scaler = StandardScaler.fit(np.random.default_rng(0).normal(size=(7, 3)))
    again = StandardScaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    assert (again.mean == scaler.mean).all()
    assert (again.scale == scaler.scale).all()


@pytest.mark.parametrize("rows", [np.empty(0), np.array([1.0, np.nan]), np.zeros((2, 2, 2))])
def test_unusable_rows_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(ModelError, match="fitted"):
        StandardScaler.fit(rows)


def test_an_unusable_dict_is_refused() -> None:
    with pytest.raises(ModelError, match="mean and scale"):
        StandardScaler.from_dict({"mean": 0.0})
    with pytest.raises(ModelError, match="not above 0"):
        StandardScaler.from_dict({"mean": 0.0, "scale": 0.0})
    with pytest.raises(ModelError, match="equal"):
        StandardScaler.from_dict({"mean": [0.0, 1.0], "scale": 1.0})
