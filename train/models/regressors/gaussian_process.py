"""Gaussian process on groups of features, with a length scale and a linear term for each group.

Features of different origin (composition, density; quantiles, bonds) differ in relevance, and their relevance depends
on the target. One length scale for all features lets irrelevant ones dominate the distance; one for each of hundreds
of features cannot be determined from few rows. One for each group is a compromise, and lets a stack use the features
of all its towers at once, so that it can learn interactions between modalities.

This is own code because scikit-learn's kernels have no length scale for a group of features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from registry.errors import ArtifactError, ModelError
from train.models.regressors.base import checked_rows, clamped_features
from train.models.safetensors_io import pack, unpack
from train.models.scalers import StandardScaler

__all__ = ["GaussianProcessRegressor"]

_LIMIT = 4.0
"""Largest absolute value of a standardised feature."""
_MAX_TUNING_ROWS = 1000
"""Rows that kernel parameters are optimised on, drawn by the seed; the weights are solved on all rows."""
_MAX_ROWS = 10_000
"""Rows that can be fitted, because the matrix of all pairs is factorised."""
_STEPS = 40
"""Iterations of L-BFGS."""
_JITTER = 1e-6
"""Added to the diagonal of the kernel matrix."""
_LENGTH, _LINEAR, _NOISE = 0.7, -1.0, -2.0
"""Initial logarithms of the parameters, and means of their priors."""
_MAX_LOGARITHM = 7.0
"""Largest absolute logarithm of a parameter."""
_PRIOR = 0.3
"""Inverse variance of the priors."""


@dataclass(frozen=True, eq=False)
class GaussianProcessRegressor:
    """Mean of a Gaussian process with the kernel

    ``a^2 exp(-sum_g d_g^2 / (2 l_g^2)) + sum_g b_g^2 z_g . z'_g``

    where ``z_g`` are the standardised and clamped features of group g, over the square root of their number, and
    ``d_g`` is the distance between two rows in them. ``a``, the lengths ``l_g``, the linear weights ``b_g`` and the
    noise maximise the marginal likelihood of the rows under broad log-normal priors (C. E. Rasmussen, C. K. I.
    Williams, Gaussian Processes for Machine Learning, 2006, sections 4.2.1 and 5.4.1).
    """

    scaler: StandardScaler
    values: StandardScaler
    """Scaler of the values."""
    groups: tuple[str, ...]
    """Names of the G groups that vary over the rows."""
    members: NDArray[np.int64]
    """(D,), group of each feature; -1 for a feature that is constant over the rows, which is ignored."""
    parameters: NDArray[np.float64]
    """(2G + 1,): logarithms of the lengths, of the linear weights, and of ``a``."""
    landmarks: NDArray[np.float32]
    """(N, D), the training rows, standardised and clamped."""
    weights: NDArray[np.float64]
    """(N,), for standardised values."""

    @classmethod
    def fit(
        cls, features: ArrayLike, values: ArrayLike, *, seed: int = 0, groups: Sequence[str] = ()
    ) -> GaussianProcessRegressor:
        """Fit to training rows.

        Parameters
        ----------
        features
            (N, D), any units.
        values
            (N,), any unit.
        seed
            Seed of the choice of 1000 rows that kernel parameters are optimised on, if there are more.
        groups
            Group name of each feature, (D,); empty for a single group.

        Raises
        ------
        ModelError
            If the lengths differ, a number is not finite, or there are more than 10 000 rows.
        """
        x, y = checked_rows(features, values)
        if groups and len(groups) != x.shape[1]:
            raise ModelError(f"{len(groups)} group names for {x.shape[1]} features; give one for each feature")
        if len(x) > _MAX_ROWS:
            raise ModelError(
                f"{len(x)} rows are too many for a Gaussian process ({_MAX_ROWS} at most); use trees or ridge"
            )
        scaler, target = StandardScaler.fit(x), StandardScaler.fit(y)
        landmarks = clamped_features(scaler, x, _LIMIT)
        of_feature = list(groups) or ["features"] * x.shape[1]
        varies = np.ptp(landmarks, axis=0) > 0
        names = tuple(dict.fromkeys(name for name, v in zip(of_feature, varies, strict=True) if v))
        members = np.array(
            [names.index(name) if v else -1 for name, v in zip(of_feature, varies, strict=True)], dtype=np.int64
        )
        z = target.transform(y)
        if not names:  # all features are constant
            return cls(scaler, target, names, members, np.zeros(1), landmarks, np.zeros(len(z)))
        tuned = np.sort(np.random.default_rng(seed).permutation(len(z))[:_MAX_TUNING_ROWS])
        found = _maximise(_blocks(landmarks[tuned], members, len(names)), z[tuned])
        with torch.no_grad():
            blocks = _blocks(landmarks, members, len(names))
            kernel = _kernel(blocks, blocks, found[:-1]) + _diagonal(found, len(z))
            weights = torch.cholesky_solve(torch.from_numpy(z)[:, None], torch.linalg.cholesky(kernel))[:, 0]
        return cls(scaler, target, names, members, found[:-1].numpy(), landmarks, weights.numpy())

    def predict(self, features: ArrayLike) -> NDArray[np.float64]:
        """Predictions in the unit of the target, (N,), from features (N, D).

        Raises
        ------
        ModelError
            If D differs from the fit.
        """
        x = np.asarray(features, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.members):
            raise ModelError(f"features of shape {x.shape}; give (N, {len(self.members)})")
        if not self.groups:
            return np.full(len(x), float(self.values.mean))
        rows = _blocks(clamped_features(self.scaler, x, _LIMIT), self.members, len(self.groups))
        landmarks = _blocks(self.landmarks, self.members, len(self.groups))
        with torch.no_grad():
            kernel = _kernel(rows, landmarks, torch.from_numpy(self.parameters))
            return np.asarray(self.values.inverse((kernel @ torch.from_numpy(self.weights)).numpy()))

    def to_bytes(self) -> bytes:
        """The regressor as safetensors."""
        tensors = {
            "mean": self.scaler.mean,
            "scale": self.scaler.scale,
            "values_mean": self.values.mean,
            "values_scale": self.values.scale,
            "members": self.members,
            "parameters": self.parameters,
            "landmarks": self.landmarks,
            "weights": self.weights,
        }
        arrays = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
        return pack(arrays, kind="gaussian-process", about={"groups": list(self.groups)})

    @classmethod
    def from_bytes(cls, data: bytes) -> GaussianProcessRegressor:
        """Restore the regressor that :meth:`to_bytes` wrote.

        Raises
        ------
        ArtifactError
            If the bytes are not a Gaussian process.
        """
        tensors, about = unpack(data, kind="gaussian-process")
        try:
            v = {name: tensor.numpy() for name, tensor in tensors.items()}
            return cls(
                StandardScaler(v["mean"], v["scale"]),
                StandardScaler(v["values_mean"], v["values_scale"]),
                tuple(str(name) for name in about["groups"]),
                v["members"],
                v["parameters"],
                v["landmarks"],
                v["weights"],
            )
        except KeyError as error:
            raise ArtifactError(f"a Gaussian process without {error}; train it again") from None


def _blocks(rows: NDArray[np.float32], members: NDArray[np.int64], n: int) -> list[Tensor]:
    """Features of each of n groups, divided by the square root of their number: (N, D_g)."""
    blocks = [rows[:, members == group].astype(np.float64) for group in range(n)]
    return [torch.from_numpy(block / np.sqrt(block.shape[1])) for block in blocks]


def _maximise(blocks: list[Tensor], z: NDArray[np.float64]) -> Tensor:
    """Logarithms of lengths, linear weights, ``a`` and noise that maximise the posterior density."""
    groups = len(blocks)
    # The distance grows with the number of groups; at the initial lengths the sum over groups is about 1.
    length = _LENGTH + 0.5 * np.log(max(groups, 1))
    start = torch.tensor([length] * groups + [_LINEAR] * groups + [0.0, _NOISE], dtype=torch.float64)
    parameters = start.clone().requires_grad_(True)
    values = torch.from_numpy(np.asarray(z))
    products = [block @ block.T for block in blocks]
    squares = [_squares(product) for product in products]
    optimiser = torch.optim.LBFGS([parameters], max_iter=_STEPS, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        # The line search may try parameters that overflow.
        tried = parameters.clamp(-_MAX_LOGARITHM, _MAX_LOGARITHM)
        kernel = _combined(squares, products, tried[:-1], len(values)) + _diagonal(tried, len(values))
        factor = torch.linalg.cholesky(kernel)
        fit = values @ torch.cholesky_solve(values[:, None], factor)[:, 0]
        loss: Tensor = 0.5 * fit + factor.diagonal().log().sum() + 0.5 * _PRIOR * (parameters - start).square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return parameters.detach().clamp(-_MAX_LOGARITHM, _MAX_LOGARITHM)


def _squares(product: Tensor) -> Tensor:
    lengths = product.diagonal()
    return (lengths[:, None] + lengths[None, :] - 2 * product).clamp_min(0)


def _kernel(a: list[Tensor], b: list[Tensor], parameters: Tensor) -> Tensor:
    products = [x @ y.T for x, y in zip(a, b, strict=True)]
    squares = [
        (x.square().sum(1)[:, None] + y.square().sum(1)[None, :] - 2 * product).clamp_min(0)
        for x, y, product in zip(a, b, products, strict=True)
    ]
    return _combined(squares, products, parameters, len(a[0]), len(b[0]))


def _combined(squares: list[Tensor], products: list[Tensor], parameters: Tensor, rows: int, columns: int = 0) -> Tensor:
    groups = len(products)
    distance = torch.zeros(rows, columns or rows, dtype=torch.float64)
    linear = torch.zeros_like(distance)
    for i, (square, product) in enumerate(zip(squares, products, strict=True)):
        distance = distance + square * torch.exp(-2 * parameters[i])
        linear = linear + product * torch.exp(2 * parameters[groups + i])
    return torch.exp(2 * parameters[2 * groups]) * torch.exp(-0.5 * distance) + linear


def _diagonal(parameters: Tensor, rows: int) -> Tensor:
    return (torch.exp(2 * parameters[-1]) + _JITTER) * torch.eye(rows, dtype=torch.float64)
