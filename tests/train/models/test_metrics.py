from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import ModelError
from train.models.metrics import mae, r2, rmse, scores


def test_metrics_of_three_rows() -> None:
    truth, predicted = [1.0, 2.0, 3.0], [1.0, 2.0, 5.0]
    assert r2(truth, predicted) == pytest.approx(1 - 4 / 2)
    assert rmse(truth, predicted) == pytest.approx((4 / 3) ** 0.5)
    assert mae(truth, predicted) == pytest.approx(2 / 3)
    assert scores(truth, predicted) == {
        "r2": r2(truth, predicted),
        "rmse": rmse(truth, predicted),
        "mae": mae(truth, predicted),
    }


def test_perfect_and_mean() -> None:
    truth = np.array([1.0, 4.0, 2.0])
    assert r2(truth, truth) == 1.0
    assert r2(truth, np.full(3, truth.mean())) == 0.0


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2, max_size=20))
def test_metrics_equal_their_formulas(pairs: list[tuple[float, float]]) -> None:
    truth, predicted = map(np.array, zip(*pairs, strict=True))
    errors = truth - predicted
    assert rmse(truth, predicted) == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert mae(truth, predicted) == pytest.approx(np.mean(np.abs(errors)))
    if np.ptp(truth) > 1e-3:
        expected = 1 - np.sum(errors**2) / np.sum((truth - truth.mean()) ** 2)
        assert r2(truth, predicted) == pytest.approx(expected)


def test_r2_of_a_constant_truth_is_undefined() -> None:
    with pytest.raises(ModelError, match="undefined"):
        r2([2.0, 2.0], [1.0, 3.0])
    assert rmse([2.0, 2.0], [1.0, 3.0]) == 1.0


@pytest.mark.parametrize(
    ("truth", "predicted"), [([], []), ([1.0], [1.0, 2.0]), ([1.0, float("nan")], [1.0, 1.0]), ([[1.0]], [[1.0]])]
)
def test_unusable_arrays_raise(truth: list[float], predicted: list[float]) -> None:
    with pytest.raises(ModelError, match="true value"):
        rmse(truth, predicted)
