"""Decision trees fitted by scikit-learn and stored as plain arrays, without pickle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from registry.errors import ArtifactError, ModelError
from train.models.safetensors_io import pack, unpack

__all__ = ["BoostedTrees", "Trees"]


@dataclass(frozen=True, eq=False)
class Trees:
    """Regression trees as concatenated nodes in depth-first order, so that the left child of a node is the next one."""

    roots: NDArray[np.int64]
    """(T,), first node of each tree."""
    feature: NDArray[np.int16]
    """(M,), feature that a node splits on; -1 in a leaf."""
    right: NDArray[np.int32]
    """(M,), right child of a node."""
    number: NDArray[np.float64]
    """(M,), threshold of a node, or value of a leaf."""

    @classmethod
    def from_estimators(cls, estimators: Sequence[Any], *, scale: float = 1.0) -> Self:
        """The trees of fitted scikit-learn estimators, with leaf values multiplied by ``scale``.

        Raises
        ------
        ModelError
            If this version of scikit-learn orders nodes differently.
        """
        trees = [estimator.tree_ for estimator in estimators]
        roots = np.cumsum([0] + [tree.node_count for tree in trees[:-1]])
        leaf = [tree.children_left < 0 for tree in trees]
        if any(
            (tree.children_left[~end] != np.flatnonzero(~end) + 1).any() for tree, end in zip(trees, leaf, strict=True)
        ):
            raise ModelError("scikit-learn's trees are not in depth-first order; this version of it is not supported")
        parts = list(zip(trees, leaf, roots, strict=True))
        return cls(
            roots=roots.astype(np.int64),
            feature=np.concatenate([np.where(end, -1, t.feature) for t, end, _ in parts]).astype(np.int16),
            right=np.concatenate([np.where(end, -1, t.children_right + root) for t, end, root in parts]).astype(
                np.int32
            ),
            number=np.concatenate([np.where(end, scale * t.value[:, 0, 0], t.threshold) for t, end, _ in parts]),
        )

    def leaves(self, features: ArrayLike) -> NDArray[np.float64]:
        """Leaf value of each row in each tree, (N, T), from features (N, D).

        Raises
        ------
        ModelError
            If there are too few features, or a value is not finite.
        """
        x = np.asarray(features, dtype=np.float32)  # scikit-learn compares float32 features with its thresholds
        needed = int(self.feature.max(initial=0)) + 1
        if x.ndim != 2 or x.shape[1] < needed or not np.isfinite(x).all():
            raise ModelError(f"features of shape {x.shape}; give finite (N, D) as in the fit, D >= {needed}")
        node = np.broadcast_to(self.roots, (len(x), len(self.roots))).copy()  # N x T
        rows = np.broadcast_to(np.arange(len(x))[:, None], node.shape)
        inner = self.feature[node] >= 0
        while inner.any():
            at, row = node[inner], rows[inner]
            left = x[row, self.feature[at]] <= self.number[at]
            node[inner] = np.where(left, at + 1, self.right[at])
            inner = self.feature[node] >= 0
        return np.asarray(self.number[node])


@dataclass(frozen=True, eq=False)
class BoostedTrees(Trees):
    """Stochastic gradient boosting of shallow trees on squared errors.

    J. H. Friedman, Computational Statistics & Data Analysis 38, 367 (2002), as implemented by scikit-learn. The
    settings are usual ones for small tables, without early stopping, so that all rows are used in the fit.
    """

    start: float
    """Mean of the training values, in the unit of the target, to which the trees are added."""

    ROUNDS = 500
    RATE = 0.05

    @classmethod
    def fit(cls, features: NDArray[np.float64], values: NDArray[np.float64], *, seed: int) -> BoostedTrees:
        """Fit to features (N, D) and values (N,), in any unit, all finite.

        Parameters
        ----------
        features, values
            Training rows.
        seed
            Seed of the subsets of rows and features for each tree.
        """
        from sklearn.ensemble import GradientBoostingRegressor

        start = float(values.mean())
        boosted = GradientBoostingRegressor(
            init="zero",
            n_estimators=cls.ROUNDS,
            learning_rate=cls.RATE,
            max_depth=4,
            min_samples_leaf=min(3, len(values)),
            subsample=0.5 if len(values) > 1 else 1.0,
            max_features=min(1.0, max(0.2, 4 / features.shape[1])),
            random_state=seed,
        ).fit(features, values - start)
        trees = Trees.from_estimators(boosted.estimators_[:, 0].tolist(), scale=cls.RATE)
        return cls(**vars(trees), start=start)

    def predict(self, features: ArrayLike) -> NDArray[np.float64]:
        """Predictions in the unit of the target, (N,), from features (N, D).

        Raises
        ------
        ModelError
            As :meth:`Trees.leaves`.
        """
        return np.asarray(self.start + self.leaves(features).sum(axis=1))

    def to_bytes(self) -> bytes:
        """The trees as safetensors."""
        tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in vars(self).items()}
        return pack(tensors, kind="gradient-boosting", about={})

    @classmethod
    def from_bytes(cls, data: bytes) -> BoostedTrees:
        """Restore the trees that :meth:`to_bytes` wrote.

        Raises
        ------
        ArtifactError
            If the bytes are not boosted trees.
        """
        tensors, _ = unpack(data, kind="gradient-boosting")
        if sorted(tensors) != ["feature", "number", "right", "roots", "start"]:
            raise ArtifactError(f"boosted trees of {', '.join(sorted(tensors))}; train it again")
        values = {name: tensor.numpy() for name, tensor in tensors.items()}
        start = float(values.pop("start"))
        return cls(**values, start=start)
