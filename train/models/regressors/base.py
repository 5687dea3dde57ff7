"""Interface of regressors, and the check of their training rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry.errors import ModelError
from train.models.scalers import FEATURE_LIMIT, StandardScaler

__all__ = ["Regressor", "RegressorKind", "checked_rows", "clamped_features"]


class Regressor(Protocol):
    """A fitted regressor."""

    def predict(self, features: ArrayLike) -> NDArray[np.float64]:
        """Predictions in the unit of the target, (N,), from features (N, D)."""

    def to_bytes(self) -> bytes:
        """The regressor as safetensors."""


@dataclass(frozen=True)
class RegressorKind:
    """A kind of regressor: how it is fitted and how it is restored."""

    fit: Callable[[NDArray[np.float64], NDArray[np.float64], int, Sequence[str]], Regressor]
    """Function of features (N, D), values (N,), a seed, and the group name of each of the D features."""
    from_bytes: Callable[[bytes], Regressor]
    """Function of the bytes that ``to_bytes`` wrote."""
    joins_features: bool = False
    """Whether a stack fits it to the features of all towers instead of the towers' predictions."""


def checked_rows(features: ArrayLike, values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features (N, D) and values (N,) as float64.

    Raises
    ------
    ModelError
        If the lengths differ, the input is empty, or a number is not finite.
    """
    x, y = np.asarray(features, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.ndim != 2 or y.shape != (len(x),) or not len(y):
        raise ModelError(f"features {x.shape} for values {y.shape}; give (N, D) and (N,), at least one row")
    if not np.isfinite(x).all() or not np.isfinite(y).all():
        raise ModelError("features and values of a regressor must be finite; exclude other rows")
    return x, y


def clamped_features(
    scaler: StandardScaler, features: NDArray[np.float64], limit: float = FEATURE_LIMIT
) -> NDArray[np.float32]:
    """Features (N, D), standardised and clamped.

    A feature that is nearly constant over the training rows can be very large for a new crystal once standardised.

    Parameters
    ----------
    scaler
        Fitted to the training rows.
    features
        (N, D).
    limit
        Largest absolute value [standard deviations].
    """
    return np.clip(scaler.transform(features), -limit, limit).astype(np.float32)
