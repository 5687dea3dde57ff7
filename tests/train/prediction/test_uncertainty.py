"""Intervals cover what they promise on exchangeable data, grow with the distance, and count exactly."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from registry.errors import ConfigurationError, ModelError
from train.prediction.uncertainty import (
    Calibration,
    Domain,
    Intervals,
    clopper_pearson,
    coverage,
    cv_plus,
)

FOLDS = 5


def regression(
    rng: np.random.Generator, n: int, m: int, *, weight: float = 1.0, confidence: float = 0.9
) -> tuple[Intervals, Intervals, NDArray[np.float64], NDArray[np.float64]]:
    """Intervals of n rows out of fold and of m new ones, with their truths: a line with noise that grows outwards."""
    x = rng.normal(size=(n + m, 4))
    y = x @ np.array([1.0, -2.0, 0.5, 0.0]) + rng.normal(size=n + m) * (0.3 + np.abs(x[:, 0]))
    folds, predicted, fold_predictions = np.arange(n) % FOLDS, np.empty(n), {}
    for fold in range(FOLDS):
        inside = folds != fold
        slope = np.linalg.lstsq(x[:n][inside], y[:n][inside], rcond=None)[0]
        predicted[~inside], fold_predictions[fold] = x[:n][~inside] @ slope, x[n:] @ slope
    calibration = Calibration(y[:n], predicted, folds, features={"image": x[:n]}, distance_weight=weight)
    new = calibration.intervals(fold_predictions, features={"image": x[n:]}, confidence=confidence)
    return calibration.out_of_fold(confidence=confidence), new, y[:n], y[n:]


@pytest.mark.parametrize("confidence", [0.5, 0.9])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_exchangeable_rows_have_the_nominal_coverage(confidence: float, weight: float) -> None:
    rng = np.random.default_rng(7)
    hits = [0, 0]
    for _ in range(60):
        own, new, y_own, y_new = regression(rng, 100, 20, weight=weight, confidence=confidence)
        hits[0] += coverage(own, y_own).covered
        hits[1] += coverage(new, y_new).covered
    # One new row of each draw would be independent; 20 of one share their models, which widens the band to that of 60.
    for hit, n in zip(hits, (60 * 100, 60 * 20), strict=True):
        low, high = binom.ppf([1e-4, 1 - 1e-4], 60 * 5, confidence) / (60 * 5)
        assert low <= hit / n <= high


def test_cv_plus_with_one_model_is_split_conformal() -> None:
    residuals = np.arange(1.0, 10.0)  # nine: the 0.9 quantile is the ninth of nine
    folds = np.array([0, 1, 2] * 3)
    fold_predictions = {fold: np.array([5.0, -1.0]) for fold in range(3)}
    lower, upper = cv_plus(residuals, folds, fold_predictions, confidence=0.9)
    assert lower == pytest.approx([-4.0, -10.0])
    assert upper == pytest.approx([14.0, 8.0])
    lower, upper = cv_plus(residuals, folds, fold_predictions, confidence=0.5)  # ceil(0.5 * 10) = 5
    assert upper - 5.0 == pytest.approx([5.0, -1.0])


def test_cv_plus_ranks_each_end_by_itself() -> None:
    # Two folds that disagree: the interval reaches over both models.
    residuals, folds = np.zeros(19), np.arange(19) % 2
    fold_predictions = {0: np.array([0.0]), 1: np.array([10.0])}
    lower, upper = cv_plus(residuals, folds, fold_predictions, confidence=0.9)
    assert (lower[0], upper[0]) == (0.0, 10.0)


def test_an_interval_contains_the_prediction_of_the_refit() -> None:
    calibration = Calibration(np.zeros(20), np.full(20, 0.1), np.arange(20) % 2)
    fold_predictions = {0: np.array([1.0]), 1: np.array([1.0])}
    intervals = calibration.intervals(fold_predictions, value=np.array([3.0]))
    assert (intervals.lower[0], intervals.upper[0]) == pytest.approx((0.9, 3.0))


@pytest.mark.parametrize("confidence", [0.5, 0.9])
def test_a_bound_removes_impossible_values_and_keeps_the_coverage(confidence: float) -> None:
    rng = np.random.default_rng(11)
    y, folds = rng.gamma(1.0, 20.0, size=200), np.arange(200) % FOLDS
    predicted = y + rng.normal(scale=15.0, size=200)  # some below zero, as a model without the bound predicts
    x = {"a": rng.normal(size=(200, 3))}
    fold_predictions = {fold: predicted + rng.normal(scale=2.0, size=200) for fold in range(FOLDS)}
    free, bounded = (Calibration(y, predicted, folds, features=x, lower_bound=bound) for bound in (None, 0.0))
    for before, after in (
        (free.out_of_fold(confidence=confidence), bounded.out_of_fold(confidence=confidence)),
        (
            free.intervals(fold_predictions, features=x, value=predicted, confidence=confidence),
            bounded.intervals(fold_predictions, features=x, value=predicted, confidence=confidence),
        ),
    ):
        assert (before.lower < np.minimum(predicted, 0)).any()  # or there were nothing to take away
        assert (after.lower >= np.minimum(predicted, 0)).all()
        assert (after.lower[predicted >= 0] >= 0).all()
        assert ((after.lower <= predicted) & (predicted <= after.upper)).all()
        assert (after.upper >= 0).all()
        assert coverage(after, y).covered == coverage(before, y).covered
        assert (after.upper - after.lower).mean() < (before.upper - before.lower).mean()
        inside = before.lower >= 0
        assert (after.lower[inside] == before.lower[inside]).all()
        assert (after.upper[inside] == before.upper[inside]).all()


def test_an_interval_below_all_that_is_possible_reaches_from_the_prediction_to_the_bound() -> None:
    calibration = Calibration(np.zeros(20), np.full(20, -9.0), np.arange(20) % 2, lower_bound=0.0)
    fold_predictions = {0: np.array([-50.0, 30.0]), 1: np.array([-50.0, 30.0])}
    intervals = calibration.intervals(fold_predictions, value=np.array([-48.0, 30.0]))
    assert (intervals.lower.tolist(), intervals.upper.tolist()) == ([-48.0, 21.0], [0.0, 39.0])
    alone = calibration.intervals(fold_predictions)  # nothing to hold: what is possible and nearest
    assert (alone.lower.tolist(), alone.upper.tolist()) == ([0.0, 21.0], [0.0, 39.0])
    own = calibration.out_of_fold()
    assert (own.lower[0], own.upper[0]) == (-9.0, 0.0)


def test_a_row_does_not_affect_its_own_interval() -> None:
    rng = np.random.default_rng(1)
    y, predicted, folds = rng.normal(size=40), rng.normal(size=40), np.arange(40) % 4
    before = Calibration(y, predicted, folds).out_of_fold()
    y[folds == 2] += 1000
    after = Calibration(y, predicted, folds).out_of_fold()
    assert (before.lower[folds == 2] == after.lower[folds == 2]).all()
    assert (after.upper[folds != 2] > before.upper[folds != 2]).all()


def test_far_away_is_out_of_domain_and_wider() -> None:
    rng = np.random.default_rng(2)
    x, folds = rng.normal(size=(200, 6)), np.arange(200) % 5
    calibration = Calibration(rng.normal(size=200), np.zeros(200), folds, features={"a": x[:, :2], "b": x[:, 2:]})
    queries = np.stack([np.zeros(6), np.full(6, 2.9)])
    fold_predictions = {fold: np.zeros(2) for fold in range(5)}
    intervals = calibration.intervals(fold_predictions, features={"a": queries[:, :2], "b": queries[:, 2:]})
    assert intervals.out_of_domain is not None
    assert intervals.out_of_domain.tolist() == [False, True]
    assert np.diff(intervals.upper - intervals.lower) > 0
    inside = calibration.out_of_fold().out_of_domain
    assert inside is not None
    assert inside.sum() <= 2  # 1 % of 200


def test_a_distance_leaves_the_own_fold_out() -> None:
    # Twins in one fold do not make each other familiar.
    x = np.array([[0.0], [0.0], [1.0], [1.0], [2.0], [2.0]])
    alone = Domain({"a": x}, np.array([0, 0, 1, 1, 2, 2]))
    mixed = Domain({"a": x}, np.array([0, 1, 1, 2, 2, 0]))
    assert alone.rows.min() > 0
    assert mixed.rows[0] < alone.rows[0]


def test_without_features_there_is_no_domain() -> None:
    calibration = Calibration(np.arange(20.0), np.zeros(20), np.arange(20) % 2)
    intervals = calibration.intervals({0: np.zeros(1), 1: np.zeros(1)})
    assert intervals.novelty is None
    assert intervals.out_of_domain is None


@pytest.mark.parametrize(("k", "n"), [(0, 12), (5, 12), (12, 12), (67, 75)])
def test_clopper_pearson_inverts_the_binomial_tests(k: int, n: int) -> None:
    low, high = clopper_pearson(k, n)
    if k:
        assert binom.sf(k - 1, n, low) == pytest.approx(0.025)
    if k < n:
        assert binom.cdf(k, n, high) == pytest.approx(0.025)
    assert (low == 0) == (k == 0)
    assert (high == 1) == (k == n)


def test_coverage_counts() -> None:
    intervals = Intervals(0.9, np.zeros(4), np.array([1.0, 1.0, 1.0, 3.0]), None)
    found = coverage(intervals, [0.5, 1.0, 1.5, -0.1])
    assert (found.n, found.covered, found.share, found.median_width) == (4, 2, 0.5, 1.0)
    assert found.low < found.confidence < found.high, "of four anything can be"


def test_confidences_that_need_more_rows_raise() -> None:
    calibration = Calibration(np.zeros(40), np.zeros(40), np.arange(40) % 4)
    with pytest.raises(ConfigurationError, match=r"from 30 residuals would be infinite; choose at most 0\.967"):
        calibration.intervals({fold: np.zeros(1) for fold in range(4)}, confidence=0.99)
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        calibration.check(1.0)
    with pytest.raises(ModelError, match="no model of fold 3"):
        calibration.intervals({fold: np.zeros(1) for fold in range(3)})
    with pytest.raises(ModelError, match="at least two folds"):
        Calibration(np.zeros(4), np.zeros(4), np.zeros(4))
    with pytest.raises(ModelError, match="do not fit"):
        Calibration(np.zeros(4), np.zeros(3), np.zeros(4))
