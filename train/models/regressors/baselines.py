"""Baselines: the mean of the training rows, and trees on Magpie features of the composition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from registry.errors import ArtifactError, ModelError
from train.models.regressors.trees import Trees
from train.models.safetensors_io import pack, unpack

__all__ = ["MagpieBaseline", "MeanBaseline"]


@dataclass(frozen=True)
class MeanBaseline:
    """Predicts the mean of the training rows; its R2 on other rows is at most 0."""

    mean: float
    """In the unit of the target."""

    @classmethod
    def fit(cls, targets: ArrayLike) -> MeanBaseline:
        """Compute the mean of the training targets, shape (N,), in their unit.

        Raises
        ------
        ModelError
            If the input is empty, or a target is not finite.
        """
        return cls(float(np.mean(_targets(targets))))

    def predict(self, n: int) -> NDArray[np.float64]:
        """The mean, repeated n times, in the unit of the target."""
        return np.full(n, self.mean)

    def to_bytes(self) -> bytes:
        """The baseline as safetensors."""
        return pack({"mean": torch.tensor(self.mean, dtype=torch.float64)}, kind="baseline-mean", about={})

    @classmethod
    def from_bytes(cls, data: bytes) -> MeanBaseline:
        """Restore the baseline that :meth:`to_bytes` wrote.

        Raises
        ------
        ArtifactError
            If the bytes are of another kind.
        """
        tensors, _ = unpack(data, kind="baseline-mean")
        if "mean" not in tensors:
            raise ArtifactError("a mean baseline without a mean; train it again")
        return cls(float(tensors["mean"]))


@dataclass(frozen=True, eq=False)
class MagpieBaseline(Trees):
    """Extremely randomised trees on Magpie composition features.

    Trees: P. Geurts, D. Ernst, L. Wehenkel, Machine Learning 63, 3 (2006), as implemented by scikit-learn.
    """

    @classmethod
    def fit(cls, features: ArrayLike, targets: ArrayLike, *, seed: int, n_estimators: int = 400) -> MagpieBaseline:
        """Fit the trees.

        Parameters
        ----------
        features
            Shape (N, D), :func:`train.featurizers.magpie.magpie_features` of the training rows.
        targets
            Shape (N,), any unit.
        seed
            Seed of the trees.
        n_estimators
            Number of trees.

        Raises
        ------
        ModelError
            If the lengths differ, the input is empty, or a value is not finite.
        """
        from sklearn.ensemble import ExtraTreesRegressor

        x, y = np.asarray(features, dtype=np.float32), _targets(targets)
        if x.ndim != 2 or len(x) != len(y) or not np.isfinite(x).all():
            raise ModelError(f"features {x.shape} for {len(y)} targets; give finite (N, D), one row for each target")
        forest = ExtraTreesRegressor(n_estimators=n_estimators, random_state=seed, n_jobs=-1).fit(x, y)
        return cls.from_estimators(forest.estimators_)

    def predict(self, features: ArrayLike) -> NDArray[np.float64]:
        """Mean over the trees, shape (N,), in the unit of the target.

        Parameters
        ----------
        features
            Shape (N, D), as for :meth:`fit`.

        Raises
        ------
        ModelError
            If the shape is another, or a value is not finite.
        """
        return np.asarray(self.leaves(features).mean(axis=1))

    def to_bytes(self) -> bytes:
        """The baseline as safetensors."""
        return pack({n: torch.from_numpy(v) for n, v in vars(self).items()}, kind="baseline-magpie", about={})

    @classmethod
    def from_bytes(cls, data: bytes) -> MagpieBaseline:
        """Restore the baseline that :meth:`to_bytes` wrote.

        Raises
        ------
        ArtifactError
            If the bytes are of another kind.
        """
        tensors, _ = unpack(data, kind="baseline-magpie")
        names = ("roots", "feature", "right", "number")
        if sorted(tensors) != sorted(names):
            raise ArtifactError(f"trees need {', '.join(names)}, found {', '.join(sorted(tensors))}; train again")
        return cls(**{name: tensors[name].numpy() for name in names})


def _targets(targets: ArrayLike) -> NDArray[np.float64]:
    y = np.asarray(targets, dtype=np.float64)
    if y.ndim != 1 or y.size == 0 or not np.isfinite(y).all():
        raise ModelError(f"targets of shape {y.shape}; give at least one, all finite")
    return y
