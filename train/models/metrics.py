"""Scores of predictions: R2, RMSE, MAE.

All take the truth and the prediction, shape (N,), both in the unit of the target.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry.errors import ModelError

__all__ = ["mae", "r2", "rmse", "scores"]


def r2(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Coefficient of determination, without unit.

    ``1 - sum((y - f)^2) / sum((y - mean(y))^2)`` with the mean over the scored rows: 1 is
    perfect, 0 is no better than that mean, below 0 is worse.

    Raises
    ------
    ModelError
        If the truth does not vary (R2 is undefined), or as :func:`rmse`.
    """
    y, f = _pair(truth, predicted)
    spread = np.sum((y - y.mean()) ** 2)
    if np.ptp(y) == 0:
        raise ModelError(f"R2 is undefined on {y.size} rows whose truth is the same value throughout")
    return float(1 - np.sum((y - f) ** 2) / spread)


def rmse(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Root mean squared error ``sqrt(mean((y - f)^2))``, in the unit of the target.

    Raises
    ------
    ModelError
        If there is no row, the lengths differ, or a value is not finite.
    """
    y, f = _pair(truth, predicted)
    return float(np.sqrt(np.mean((y - f) ** 2)))


def mae(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Mean absolute error ``mean(|y - f|)``, in the unit of the target.

    Raises
    ------
    ModelError
        As :func:`rmse`.
    """
    y, f = _pair(truth, predicted)
    return float(np.mean(np.abs(y - f)))


def scores(truth: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """``{"r2": ..., "rmse": ..., "mae": ...}``.

    Raises
    ------
    ModelError
        As :func:`r2` and :func:`rmse`.
    """
    return {"r2": r2(truth, predicted), "rmse": rmse(truth, predicted), "mae": mae(truth, predicted)}


def _pair(truth: ArrayLike, predicted: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, f = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if y.shape != f.shape or y.ndim != 1 or y.size == 0:
        raise ModelError(f"truth of shape {y.shape} and prediction of shape {f.shape} cannot be scored; give (N,)")
    if not (np.isfinite(y).all() and np.isfinite(f).all()):
        raise ModelError(f"of {y.size} rows some truth or prediction is not finite; such rows cannot be scored")
    return y, f
