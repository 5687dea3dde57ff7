"""Regression metrics: R2, RMSE and MAE of checked arrays, from scikit-learn.

All functions take true values and predictions, shape (N,), both in the unit of the target.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry.errors import ModelError

__all__ = ["mae", "r2", "rmse", "scores"]


def r2(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Coefficient of determination, dimensionless.

    ``1 - sum((y - f)^2) / sum((y - mean(y))^2)`` with the mean over the scored rows: 1 for exact predictions, 0 for
    those of that mean.

    Raises
    ------
    ModelError
        If the true values do not vary (R2 is undefined), or as :func:`rmse`.
    """
    from sklearn.metrics import r2_score

    y, f = _pair(truth, predicted)
    if np.ptp(y) == 0:
        raise ModelError(f"R2 is undefined on {y.size} rows of the same true value")
    return float(r2_score(y, f))


def rmse(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Root mean squared error ``sqrt(mean((y - f)^2))``, in the unit of the target.

    Raises
    ------
    ModelError
        If the input is empty, the lengths differ, or a value is not finite.
    """
    from sklearn.metrics import root_mean_squared_error

    y, f = _pair(truth, predicted)
    return float(root_mean_squared_error(y, f))


def mae(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Mean absolute error ``mean(|y - f|)``, in the unit of the target.

    Raises
    ------
    ModelError
        As :func:`rmse`.
    """
    from sklearn.metrics import mean_absolute_error

    y, f = _pair(truth, predicted)
    return float(mean_absolute_error(y, f))


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
        raise ModelError(f"true values of shape {y.shape} and predictions of shape {f.shape}; give (N,) each")
    if not (np.isfinite(y).all() and np.isfinite(f).all()):
        raise ModelError(f"of {y.size} rows some true value or prediction is not finite; exclude such rows")
    return y, f
