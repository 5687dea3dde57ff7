from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import ModelError
from train.models.metrics import mae, r2, rmse, scores


def test_by_hand() -> None:
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
def test_agrees_with_scikit_learn(pairs: list[tuple[float, float]]) -> None:
    from sklearn import metrics

    truth, predicted = map(np.array, zip(*pairs, strict=True))
    assert rmse(truth, predicted) == pytest.approx(metrics.root_mean_squared_error(truth, predicted))
    assert mae(truth, predicted) == pytest.approx(metrics.mean_absolute_error(truth, predicted))
    if np.ptp(truth) > 1e-3:
        assert r2(truth, predicted) == pytest.approx(metrics.r2_score(truth, predicted))


def test_r2_of_a_constant_truth_is_undefined() -> None:
    with pytest.raises(ModelError, match="undefined"):
        r2([2.0, 2.0], [1.0, 3.0])
    assert rmse([2.0, 2.0], [1.0, 3.0]) == 1.0


@pytest.mark.parametrize(
    ("truth", "predicted"), [([], []), ([1.0], [1.0, 2.0]), ([1.0, float("nan")], [1.0, 1.0]), ([[1.0]], [[1.0]])]
)
def test_what_cannot_be_scored_is_refused(truth: list[float], predicted: list[float]) -> None:
    with pytest.raises(ModelError, match="scored"):
        rmse(truth, predicted)
