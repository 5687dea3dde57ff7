"""Paired bootstrap: exact for small samples, and a tie for models that do not differ."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy.orm import Session

from registry.errors import NotFoundError, QueryError, UnknownNameError
from train.analysis.comparison import Comparison, compare_models, paired_bootstrap


def test_equal_models_have_no_difference() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.normal(size=50), rng.normal(size=50)
    assert paired_bootstrap(truth, predicted, predicted, [str(i) for i in range(50)]) == (0.0, 0.0)


def test_errors_that_differ_by_a_factor_differ_by_it_in_every_draw() -> None:
    truth = np.zeros(40)
    errors = np.ones(40)
    low, high = paired_bootstrap(truth, 3 * errors, errors, [str(i) for i in range(40)])
    assert (low, high) == pytest.approx((2.0, 2.0))


def test_pairing_detects_small_differences() -> None:
    rng = np.random.default_rng(1)
    hard = rng.exponential(5.0, size=70)  # most of the error is the crystal's
    low, high = paired_bootstrap(np.zeros(70), hard, hard + 0.3, [str(i) for i in range(70)])
    assert high < 0
    assert low > -0.4


def test_noise_is_a_tie_as_often_as_it_should_be() -> None:
    rng = np.random.default_rng(2)
    groups = [str(i) for i in range(60)]
    ties = 0
    for _ in range(200):
        low, high = paired_bootstrap(np.zeros(60), rng.normal(size=60), rng.normal(size=60), groups, draws=500)
        ties += low <= 0 <= high
    assert 175 <= ties <= 200


def test_a_crystal_in_several_splits_is_one_crystal() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=30), rng.normal(size=30)
    alone = paired_bootstrap(np.zeros(30), a, b, [str(i) for i in range(30)])
    three = [np.tile(x, 3) for x in (np.zeros(30), a, b)]
    together = paired_bootstrap(*three, [str(i % 30) for i in range(90)])
    assert together == pytest.approx(alone)
    apart = paired_bootstrap(*three, [str(i) for i in range(90)])
    assert apart[1] - apart[0] < 0.75 * (alone[1] - alone[0])


@pytest.mark.parametrize(("low", "high", "verdict"), [(-2, -1, "better"), (1, 2, "worse"), (-1, 1, "tie")])
def test_an_interval_with_zero_is_a_tie(low: float, high: float, verdict: str) -> None:
    one = Comparison("a", "b", "k_vrh", "GPa", ("s",), 9, 9, 1.0, 1.0, 0.0, low, high)
    assert one.verdict == verdict


def test_models_that_cannot_be_compared_raise(session: Session) -> None:
    with pytest.raises(NotFoundError, match="have no holdout prediction of k_vrh in common"):
        compare_models(session, "image", "text", "k_vrh")
    with pytest.raises(QueryError, match="cannot be compared with itself"):
        compare_models(session, "image", "image", "k_vrh")
    with pytest.raises(QueryError, match="subset is 'train'"):
        compare_models(session, "image", "text", "k_vrh", subset="train")
    with pytest.raises(UnknownNameError):
        compare_models(session, "image", "text", "hardness")
