"""Regressors that are no network: what a tower puts on its features, or a stack on its towers' predictions.

An entry of :data:`REGRESSORS` fits one from features (N, D) and values (N,) in the unit of the target, and reads back
what :meth:`Regressor.to_bytes` wrote: safetensors, nothing is ever unpickled. The same rows and seed give the same
regressor. Whatever is scaled or chosen is scaled and chosen on the rows given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from registry.catalog import Catalog
from registry.errors import ArtifactError, ModelError
from train.models.baselines import MagpieBaseline
from train.models.safetensors_io import pack, unpack
from train.models.scalers import StandardScaler
from train.models.trees import BoostedTrees

__all__ = ["REGRESSORS", "Regressor", "RegressorKind", "RidgeRegressor"]


class Regressor(Protocol):
    """A fitted regressor."""

    def predict(self, features: ArrayLike) -> NDArray[np.float64]:
        """Values in the unit of the target, (N,), of features (N, D)."""

    def to_bytes(self) -> bytes:
        """safetensors."""


@dataclass(frozen=True)
class RegressorKind:
    """How a regressor is fitted, and how it is read back."""

    fit: Callable[[NDArray[np.float64], NDArray[np.float64], int, Sequence[str]], Regressor]
    """Of features (N, D), values (N,), a seed, and for each of the D features the name of the group that it belongs to:
    a regressor may weigh groups as a whole."""
    from_bytes: Callable[[bytes], Regressor]
    """Of what ``to_bytes`` wrote."""
    joins_features: bool = False
    """Whether a stack joins its towers by fitting it to the features of all towers, and not to what they say."""


REGRESSORS: Catalog[RegressorKind] = Catalog("regressors")
"""Regressors by name."""

_RIDGES = 10.0 ** np.arange(-4.0, 5.0)


@dataclass(frozen=True, eq=False)
class RidgeRegressor:
    """Ridge regression on standardised features; generalised cross-validation chooses the ridge.

    G. H. Golub, M. Heath, G. Wahba, Technometrics 21, 215 (1979).
    """

    scaler: StandardScaler
    weights: NDArray[np.float64]
    """(D,), of standardised features, in the unit of the target."""
    intercept: float
    """In the unit of the target."""

    @classmethod
    def fit(cls, features: ArrayLike, values: ArrayLike) -> RidgeRegressor:
        """Fit to features (N, D) and values (N,), any unit; nothing in it is random.

        Raises
        ------
        ModelError
            If the lengths differ or a number is not finite.
        """
        x, y = rows_of(features, values)
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
        """Values in the unit of the target, (N,), of features (N, D).

        Raises
        ------
        ModelError
            If D is another one.
        """
        x = np.asarray(features, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.weights):
            raise ModelError(f"features of shape {x.shape}; give (N, {len(self.weights)})")
        return np.asarray(self.scaler.transform(x) @ self.weights + self.intercept)

    def to_bytes(self) -> bytes:
        """safetensors."""
        tensors = {
            "mean": self.scaler.mean,
            "scale": self.scaler.scale,
            "weights": self.weights,
            "intercept": np.array(self.intercept),
        }
        return pack({name: torch.from_numpy(np.asarray(v)) for name, v in tensors.items()}, kind="ridge", about={})

    @classmethod
    def from_bytes(cls, data: bytes) -> RidgeRegressor:
        """The regressor that :meth:`to_bytes` wrote.

        Raises
        ------
        ArtifactError
            If the bytes are no such regressor.
        """
        tensors, _ = unpack(data, kind="ridge")
        if sorted(tensors) != ["intercept", "mean", "scale", "weights"]:
            raise ArtifactError(f"a ridge regressor of {', '.join(sorted(tensors))}; train it again")
        values = {name: tensor.numpy() for name, tensor in tensors.items()}
        scaler = StandardScaler(values["mean"], values["scale"])
        return cls(scaler, values["weights"], float(values["intercept"]))


def rows_of(features: ArrayLike, values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Features (N, D) and values (N,) as float64, checked.

    Raises
    ------
    ModelError
        If the lengths differ, there is no row, or a number is not finite.
    """
    x, y = np.asarray(features, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.ndim != 2 or y.shape != (len(x),) or not len(y):
        raise ModelError(f"features {x.shape} for values {y.shape}; give (N, D) and (N,), one row at least")
    if not np.isfinite(x).all() or not np.isfinite(y).all():
        raise ModelError("features and values of a regressor must be finite; leave those rows out")
    return x, y


def _ridge(
    features: NDArray[np.float64], values: NDArray[np.float64], _seed: int, _groups: Sequence[str]
) -> RidgeRegressor:
    return RidgeRegressor.fit(features, values)


def _trees(
    features: NDArray[np.float64], values: NDArray[np.float64], seed: int, _groups: Sequence[str]
) -> MagpieBaseline:
    return MagpieBaseline.fit(features, values, seed=seed)


def _boosting(
    features: NDArray[np.float64], values: NDArray[np.float64], seed: int, _groups: Sequence[str]
) -> BoostedTrees:
    return BoostedTrees.fit(*rows_of(features, values), seed=seed)


def _kernel(
    features: NDArray[np.float64], values: NDArray[np.float64], _seed: int, _groups: Sequence[str]
) -> Regressor:
    from train.models.kernels import KernelRegressor

    return KernelRegressor.fit(features, values)


def _kernel_from_bytes(data: bytes) -> Regressor:
    from train.models.kernels import KernelRegressor

    return KernelRegressor.from_bytes(data)


def _gaussian_process(
    features: NDArray[np.float64], values: NDArray[np.float64], seed: int, groups: Sequence[str]
) -> Regressor:
    from train.models.gaussian_process import GaussianProcessRegressor

    return GaussianProcessRegressor.fit(features, values, seed, groups)


def _gaussian_process_from_bytes(data: bytes) -> Regressor:
    from train.models.gaussian_process import GaussianProcessRegressor

    return GaussianProcessRegressor.from_bytes(data)


REGRESSORS.add("gaussian-process", RegressorKind(_gaussian_process, _gaussian_process_from_bytes, joins_features=True))
REGRESSORS.add("gradient-boosting", RegressorKind(_boosting, BoostedTrees.from_bytes))
REGRESSORS.add("kernel", RegressorKind(_kernel, _kernel_from_bytes))
REGRESSORS.add("ridge", RegressorKind(_ridge, RidgeRegressor.from_bytes))
REGRESSORS.add("trees", RegressorKind(_trees, MagpieBaseline.from_bytes))
