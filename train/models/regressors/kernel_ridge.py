"""Kernel ridge regression with hyper-parameters from the leave-one-out error, for many features and few rows.

This is own code because the eigendecomposition that gives the leave-one-out errors of all ridges also gives the
weights; ``sklearn.kernel_ridge.KernelRidge`` has no leave-one-out errors and would solve anew for each ridge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from registry.errors import ArtifactError, ModelError
from train.models.regressors.base import checked_rows, clamped_features
from train.models.safetensors_io import pack, unpack
from train.models.scalers import StandardScaler

__all__ = ["KernelRegressor"]

_LENGTHS = (1.0, 2.0, 4.0, 8.0)
"""Length scales that are tried, in units of the root mean square distance of standardised features."""
_NOISES = 10.0 ** np.arange(-4.0, 1.0)
"""Ridges that are tried, as a share of the variance of the values."""


@dataclass(frozen=True, eq=False)
class KernelRegressor:
    """Kernel ridge regression with a Matérn kernel of smoothness 3/2: the mean of a Gaussian process.

    Features are standardised on the rows and clamped like those of a tower; a distance is the root mean square over
    features. Length scale and ridge are the pair with the smallest leave-one-out error on the rows, which has a closed
    form: ``e_i = (K^-1 y)_i / (K^-1)_ii`` (C. E. Rasmussen, C. K. I. Williams, Gaussian Processes for Machine
    Learning, 2006, sections 4.2 and 5.4.2).
    """

    scaler: StandardScaler
    values: StandardScaler
    """Scaler of the values."""
    landmarks: NDArray[np.float32]
    """(N, D), the training rows, standardised and clamped."""
    weights: NDArray[np.float64]
    """(N,), for standardised values."""
    length: float
    """Length scale of the kernel."""

    @classmethod
    def fit(cls, features: ArrayLike, values: ArrayLike) -> KernelRegressor:
        """Fit to features (N, D) and values (N,), in any unit; the fit is deterministic.

        Raises
        ------
        ModelError
            If the lengths differ or a number is not finite.
        """
        x, y = checked_rows(features, values)
        scaler, target = StandardScaler.fit(x), StandardScaler.fit(y)
        landmarks = clamped_features(scaler, x)
        distances = _distances(landmarks, landmarks)
        z = target.transform(y)
        best = (np.inf, _LENGTHS[0], z)
        for length in _LENGTHS:
            eigenvalues, vectors = np.linalg.eigh(_matern(distances, length))
            along = vectors.T @ z
            for noise in _NOISES:
                inverse = 1 / (np.maximum(eigenvalues, 0) + noise)
                weights = vectors @ (inverse * along)
                left_out = weights / (vectors**2 @ inverse)
                error = float(np.mean(left_out**2))
                if error < best[0]:
                    best = (error, length, weights)
        return cls(scaler, target, landmarks, best[2], best[1])

    def predict(self, features: ArrayLike) -> NDArray[np.float64]:
        """Predictions in the unit of the target, (N,), from features (N, D).

        Raises
        ------
        ModelError
            If D differs from the fit.
        """
        x = np.asarray(features, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != self.landmarks.shape[1]:
            raise ModelError(f"features of shape {x.shape}; give (N, {self.landmarks.shape[1]})")
        near = _matern(_distances(clamped_features(self.scaler, x), self.landmarks), self.length)
        return self.values.inverse(near @ self.weights)

    def to_bytes(self) -> bytes:
        """The regressor as safetensors."""
        tensors = {
            "mean": self.scaler.mean,
            "scale": self.scaler.scale,
            "values_mean": self.values.mean,
            "values_scale": self.values.scale,
            "landmarks": self.landmarks,
            "weights": self.weights,
            "length": np.array(self.length),
        }
        return pack({name: torch.from_numpy(np.array(v)) for name, v in tensors.items()}, kind="kernel", about={})

    @classmethod
    def from_bytes(cls, data: bytes) -> KernelRegressor:
        """Restore the regressor that :meth:`to_bytes` wrote.

        Raises
        ------
        ArtifactError
            If the bytes are not a kernel regressor.
        """
        tensors, _ = unpack(data, kind="kernel")
        try:
            v = {name: tensor.numpy() for name, tensor in tensors.items()}
            return cls(
                StandardScaler(v["mean"], v["scale"]),
                StandardScaler(v["values_mean"], v["values_scale"]),
                v["landmarks"],
                v["weights"],
                float(v["length"]),
            )
        except KeyError as error:
            raise ArtifactError(f"a kernel regressor without {error}; train it again") from None


def _distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Root mean square over features, (N, M)."""
    left, right = a.astype(np.float64), b.astype(np.float64)
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1)[None] - 2 * left @ right.T
    return np.asarray(np.sqrt(np.maximum(squares, 0) / a.shape[1]))


def _matern(distances: NDArray[np.float64], length: float) -> NDArray[np.float64]:
    scaled = np.sqrt(3.0) * distances / length
    return np.asarray((1 + scaled) * np.exp(-scaled))
