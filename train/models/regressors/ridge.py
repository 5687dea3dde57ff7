"""Ridge regression with the ridge chosen by generalised cross-validation.

This is own code because ``sklearn.linear_model.RidgeCV`` minimises the leave-one-out error instead of the generalised
cross-validation score, and so chooses other ridges. At equal ridge the predictions agree to 1e-14.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from registry.errors import ArtifactError, ModelError
from train.models.regressors.base import checked_rows
from train.models.safetensors_io import pack, unpack
from train.models.scalers import StandardScaler

__all__ = ["RidgeRegressor"]

_RIDGES = 10.0 ** np.arange(-4.0, 5.0)
"""Ridges that are tried, for each training row."""


@dataclass(frozen=True, eq=False)
class RidgeRegressor:
    """Ridge regression on standardised features (G. H. Golub, M. Heath, G. Wahba, Technometrics 21, 215 (1979))."""

    scaler: StandardScaler
    weights: NDArray[np.float64]
    """(D,), of standardised features, in the unit of the target."""
    intercept: float
    """In the unit of the target."""

    @classmethod
    def fit(cls, features: ArrayLike, values: ArrayLike) -> RidgeRegressor:
        """Fit to features (N, D) and values (N,), in any unit; the fit is deterministic.

        Raises
        ------
        ModelError
            If the lengths differ or a number is not finite.
        """
        x, y = checked_rows(features, values)
        scaler = StandardScaler.fit(x)
        z = scaler.transform(x)
        mean = float(y.mean())
        u, s, vt = np.linalg.svd(z, full_matrices=False)
        along = u.T @ (y - mean)
        rest = float(np.sum((y - mean) ** 2) - np.sum(along**2))
        best, chosen = np.inf, float(_RIDGES[-1])
        for ridge in _RIDGES * len(x):
            kept = s**2 / (s**2 + ridge)
            freedom = len(x) - 1 - float(kept.sum())
            score = (rest + float(np.sum(((1 - kept) * along) ** 2))) / freedom**2 if freedom > 0 else np.inf
            if score < best:
                best, chosen = score, float(ridge)
        return cls(scaler, vt.T @ (s / (s**2 + chosen) * along), mean)

    def predict(self, features: ArrayLike) -> NDArray[np.float64]:
        """Predictions in the unit of the target, (N,), from features (N, D).

        Raises
        ------
        ModelError
            If D differs from the fit.
        """
        x = np.asarray(features, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.weights):
            raise ModelError(f"features of shape {x.shape}; give (N, {len(self.weights)})")
        return np.asarray(self.scaler.transform(x) @ self.weights + self.intercept)

    def to_bytes(self) -> bytes:
        """The regressor as safetensors."""
        tensors = {
            "mean": self.scaler.mean,
            "scale": self.scaler.scale,
            "weights": self.weights,
            "intercept": np.array(self.intercept),
        }
        return pack({name: torch.from_numpy(np.asarray(v)) for name, v in tensors.items()}, kind="ridge", about={})

    @classmethod
    def from_bytes(cls, data: bytes) -> RidgeRegressor:
        """Restore the regressor that :meth:`to_bytes` wrote.

        Raises
        ------
        ArtifactError
            If the bytes are not a ridge regressor.
        """
        tensors, _ = unpack(data, kind="ridge")
        if sorted(tensors) != ["intercept", "mean", "scale", "weights"]:
            raise ArtifactError(f"a ridge regressor of {', '.join(sorted(tensors))}; train it again")
        values = {name: tensor.numpy() for name, tensor in tensors.items()}
        scaler = StandardScaler(values["mean"], values["scale"])
        return cls(scaler, values["weights"], float(values["intercept"]))
