from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from registry.errors import ArtifactError, ModelError
from train.models.metrics import r2
from train.models.regressors.baselines import MagpieBaseline, MeanBaseline
from train.models.regressors.trees import BoostedTrees


@pytest.fixture(scope="module")
def rows() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 10)) * np.logspace(-3, 5, 10)
    return x, 150 + 40 * np.sign(x[:, 0]) + 10 * x[:, 1] / np.abs(x[:, 1]).max() + rng.normal(size=120)


def test_the_mean() -> None:
    baseline = MeanBaseline.fit([1.0, 2.0, 6.0])
    assert baseline.predict(2).tolist() == [3.0, 3.0]
    assert MeanBaseline.from_bytes(baseline.to_bytes()) == baseline
    with pytest.raises(ModelError):
        MeanBaseline.fit([])
    with pytest.raises(ModelError):
        MeanBaseline.fit([1.0, np.nan])


def test_trees_predict_as_scikit_learns_do(rows: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    from sklearn.ensemble import ExtraTreesRegressor

    x, y = rows
    ours = MagpieBaseline.fit(x[:80], y[:80], seed=5, n_estimators=30)
    theirs = ExtraTreesRegressor(n_estimators=30, random_state=5).fit(x[:80], y[:80])
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-9)
    assert r2(y[80:], ours.predict(x[80:])) > 0.8


def test_trees_survive_their_bytes(rows: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    x, y = rows
    baseline = MagpieBaseline.fit(x, y, seed=0, n_estimators=10)
    data = baseline.to_bytes()
    assert data == MagpieBaseline.fit(x, y, seed=0, n_estimators=10).to_bytes()
    np.testing.assert_array_equal(MagpieBaseline.from_bytes(data).predict(x), baseline.predict(x))
    assert MagpieBaseline.fit(x, y, seed=1, n_estimators=10).to_bytes() != data


def test_boosted_trees_predict_as_scikit_learns_do(rows: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    from sklearn.ensemble import GradientBoostingRegressor

    x, y = rows
    ours = BoostedTrees.fit(x[:80], y[:80], seed=5)
    theirs = GradientBoostingRegressor(
        init="zero", n_estimators=500, learning_rate=0.05, max_depth=4, min_samples_leaf=3, subsample=0.5,
        max_features=0.4, random_state=5,
    ).fit(x[:80], y[:80] - y[:80].mean())  # fmt: skip
    np.testing.assert_allclose(ours.predict(x), y[:80].mean() + theirs.predict(x), rtol=1e-9)
    assert r2(y[80:], ours.predict(x[80:])) > 0.8
    data = ours.to_bytes()
    assert data == BoostedTrees.fit(x[:80], y[:80], seed=5).to_bytes()
    np.testing.assert_array_equal(BoostedTrees.from_bytes(data).predict(x), ours.predict(x))
    assert BoostedTrees.fit(x[:1], y[:1], seed=0).predict(x[:2]).tolist() == [y[0], y[0]]
    with pytest.raises(ModelError, match="shape"):
        ours.predict(x[:, :2])
    with pytest.raises(ArtifactError, match="gradient-boosting"):
        BoostedTrees.from_bytes(MeanBaseline(1.0).to_bytes())


def test_a_single_row_is_a_single_leaf() -> None:
    baseline = MagpieBaseline.fit(np.zeros((1, 3)), [7.0], seed=0, n_estimators=4)
    assert baseline.predict(np.ones((2, 3))).tolist() == [7.0, 7.0]


def test_unusable_rows_are_refused(rows: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    x, y = rows
    with pytest.raises(ModelError, match="features"):
        MagpieBaseline.fit(x[:5], y[:4], seed=0)
    with pytest.raises(ModelError, match="features"):
        MagpieBaseline.fit(np.full((4, 2), np.nan), y[:4], seed=0)
    baseline = MagpieBaseline.fit(x, y, seed=0, n_estimators=10)
    with pytest.raises(ModelError, match="shape"):
        baseline.predict(x[:, :2])
    with pytest.raises(ArtifactError, match="baseline-mean"):
        MagpieBaseline.from_bytes(MeanBaseline(1.0).to_bytes())
    with pytest.raises(ArtifactError):
        MeanBaseline.from_bytes(baseline.to_bytes())
