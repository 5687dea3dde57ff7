"""Catalog of regressors by name, for the head of a tower or the join of a stack.

An entry fits a regressor to features (N, D) and values (N,) in the unit of the target, and restores one from
safetensors; nothing is unpickled. The same rows and seed give the same regressor. Scaling and hyper-parameters are
determined on the given rows alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from registry.catalog import Catalog
from train.models.regressors.base import RegressorKind, checked_rows
from train.models.regressors.baselines import MagpieBaseline
from train.models.regressors.gaussian_process import GaussianProcessRegressor
from train.models.regressors.kernel_ridge import KernelRegressor
from train.models.regressors.ridge import RidgeRegressor
from train.models.regressors.trees import BoostedTrees

__all__ = ["REGRESSORS"]

REGRESSORS: Catalog[RegressorKind] = Catalog("regressors")
"""Regressors by name."""


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
    return BoostedTrees.fit(*checked_rows(features, values), seed=seed)


def _kernel(
    features: NDArray[np.float64], values: NDArray[np.float64], _seed: int, _groups: Sequence[str]
) -> KernelRegressor:
    return KernelRegressor.fit(features, values)


def _gaussian_process(
    features: NDArray[np.float64], values: NDArray[np.float64], seed: int, groups: Sequence[str]
) -> GaussianProcessRegressor:
    return GaussianProcessRegressor.fit(features, values, seed=seed, groups=groups)


REGRESSORS.add(
    "gaussian-process", RegressorKind(_gaussian_process, GaussianProcessRegressor.from_bytes, joins_features=True)
)
REGRESSORS.add("gradient-boosting", RegressorKind(_boosting, BoostedTrees.from_bytes))
REGRESSORS.add("kernel", RegressorKind(_kernel, KernelRegressor.from_bytes))
REGRESSORS.add("ridge", RegressorKind(_ridge, RidgeRegressor.from_bytes))
REGRESSORS.add("trees", RegressorKind(_trees, MagpieBaseline.from_bytes))
