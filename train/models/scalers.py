"""Standardisation of features and targets, fitted on training rows only and stored with the model.

This is own code because ``sklearn.preprocessing.StandardScaler`` takes no one-dimensional target, and its threshold for
a constant column grows with the number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry.errors import ModelError

__all__ = ["FEATURE_LIMIT", "StandardScaler"]

FEATURE_LIMIT = 3.0
"""Largest absolute value that standardised features are clamped to, in towers, kernels and distances."""


@dataclass(frozen=True, eq=False)
class StandardScaler:
    """``z = (x - mean) / scale``, column by column.

    ``mean`` and ``scale`` have shape (), for a target, or (D,), for features, and the unit
    of the fitted rows. A column that is constant over the training rows has ``scale`` 1, so
    that it is 0 on them and not amplified elsewhere.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("mean", "scale"):
            # A copy, so that the scaler does not change with the array it was made from.
            object.__setattr__(self, name, np.array(getattr(self, name), dtype=np.float64))
        if self.mean.shape != self.scale.shape or self.mean.ndim > 1:
            raise ModelError(f"scaler of mean {self.mean.shape} and scale {self.scale.shape}; the shapes must be equal")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ModelError("scaler with a mean that is not finite or a scale that is not above 0")

    @classmethod
    def fit(cls, rows: ArrayLike) -> StandardScaler:
        """Mean and standard deviation (population, ``ddof=0``) of the rows.

        Parameters
        ----------
        rows
            Shape (N,) for a target or (N, D) for features, any unit; training rows only.

        Raises
        ------
        ModelError
            If the input is empty, or a value is not finite.
        """
        values = np.asarray(rows, dtype=np.float64)
        if values.ndim not in (1, 2) or values.shape[0] == 0:
            raise ModelError(f"a scaler cannot be fitted on an array of shape {values.shape}; give at least one row")
        if not np.isfinite(values).all():
            raise ModelError("a scaler cannot be fitted on values that are not finite; exclude those rows")
        mean = values.mean(axis=0)
        std = values.std(axis=0)
        # A standard deviation at rounding level is zero: dividing by it would amplify rounding errors.
        constant = std <= 16 * np.finfo(np.float64).eps * np.abs(values).max(axis=0)
        return cls(mean, np.where(constant, 1.0, std))

    def transform(self, values: ArrayLike) -> NDArray[np.float64]:
        """Standardised values, of the same shape."""
        return np.asarray((np.asarray(values, dtype=np.float64) - self.mean) / self.scale)

    def inverse(self, values: ArrayLike) -> NDArray[np.float64]:
        """Values in the fitted unit, from standardised ones, of the same shape."""
        return np.asarray(np.asarray(values, dtype=np.float64) * self.scale + self.mean)

    def to_dict(self) -> dict[str, Any]:
        """``{"mean": ..., "scale": ...}`` as JSON values; floats are restored exactly."""
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StandardScaler:
        """Restore the scaler that :meth:`to_dict` described.

        Raises
        ------
        ModelError
            If mean or scale is missing or invalid.
        """
        if "mean" not in values or "scale" not in values:
            raise ModelError(f"a scaler needs mean and scale, got {sorted(values)}")
        return cls(np.asarray(values["mean"]), np.asarray(values["scale"]))
