"""Out-of-fold features and predictions of towers, which stacks are fitted to.

A tower fits its own training rows far better than new ones, so a readout trained on those in-sample features
learns to trust the tower that overfits most. Out-of-fold features describe rows that a tower has not seen: the training
rows are assigned to groups, and for each group a tower is trained on the others.

Hidden units of two trainings are not the same functions, so the features of such an inner tower are mapped onto
those of the full tower, by ridge regression towards the identity on the rows that the inner tower was trained on.
Inner towers start from the full tower's initial weights, which keeps the two close.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from train.models.fitted import FitContext, FittedModel
from train.models.fitting import fit_model
from train.models.network_fitting import FittedNetwork

__all__ = ["align", "assign_groups", "out_of_fold_features", "out_of_fold_predictions"]

_RIDGES = tuple(10.0**power for power in range(-3, 4))


def out_of_fold_features(
    context: FitContext, full: FittedNetwork, *, groups: Sequence[str], n_groups: int = 5
) -> NDArray[np.float32]:
    """Penultimate features of training rows, each of a tower that was not trained on the row.

    Parameters
    ----------
    context
        Of the full tower: its configuration, the N rows that it was fitted to, and the epochs of its phases.
    full
        The full tower.
    groups
        Group of each row, which is not divided: its material.
    n_groups
        Number of inner towers.

    Returns
    -------
    NDArray
        (N, width), in the basis of the full tower.
    """
    reference = full.encode(context.batch)
    features = np.empty_like(reference)
    for held, kept, inner in _inner_towers(context, assign_groups(groups, n_groups, seed=context.seed)):
        assert isinstance(inner, FittedNetwork)
        features[held] = align(
            inner.encode(context.batch.take(kept)), reference[kept], inner.encode(context.batch.take(held))
        )
    return features


def out_of_fold_predictions(context: FitContext, *, groups: Sequence[str], n_groups: int = 5) -> NDArray[np.float64]:
    """Predictions for training rows, each by a tower that was not trained on the row.

    Parameters
    ----------
    context
        Of the full tower: its configuration, the N rows that it was fitted to, and the epochs of its phases.
    groups
        Group of each row, which is not divided: its material.
    n_groups
        Number of inner towers.

    Returns
    -------
    NDArray
        (N,), in the unit of the target.
    """
    predictions = np.empty(len(context.batch))
    for held, _, inner in _inner_towers(context, assign_groups(groups, n_groups, seed=context.seed)):
        predictions[held] = inner.predict(context.batch.take(held))
    return predictions


def assign_groups(names: Sequence[str], n_groups: int, *, seed: int) -> NDArray[np.int64]:
    """Assign rows to groups of nearly equal size, by a seeded hash; rows of one name stay together.

    Parameters
    ----------
    names
        (N,) names.
    n_groups
        Number of groups.
    seed
        Another seed gives another assignment.

    Returns
    -------
    NDArray
        (N,), from 0 to ``n_groups - 1``.
    """
    order = sorted(set(names), key=lambda name: hashlib.sha256(f"{seed}:group:{name}".encode()).digest())
    place = {name: rank % n_groups for rank, name in enumerate(order)}
    return np.array([place[name] for name in names], dtype=np.int64)


def _inner_towers(
    context: FitContext, assigned: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], FittedModel]]:
    """For each group of rows: the rows held back, the others, and the tower trained on the others."""
    for group in np.unique(assigned):
        held, kept = np.flatnonzero(assigned == group), np.flatnonzero(assigned != group)
        *_, inner = fit_model(replace(context, batch=context.batch.take(kept), targets=context.targets[kept]))
        yield held, kept, inner


def align(
    features: NDArray[np.float32], reference: NDArray[np.float32], others: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Map features of one network onto those of another.

    Least squares ``(X - m) (I + D) + n = Y`` with a ridge on ``D``, which generalised cross-validation chooses
    (Golub, Heath, Wahba, Technometrics 21, 215 (1979)).

    Parameters
    ----------
    features, reference
        X and Y, (N, D): the same rows in both bases.
    others
        (M, D), rows in the first basis.

    Returns
    -------
    NDArray
        (M, D), in the second basis.
    """
    x, y = features.astype(np.float64), reference.astype(np.float64)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    x, y = x - mean_x, y - mean_y
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    scale = max(float(np.mean(s**2)), np.finfo(np.float64).tiny)
    change = u.T @ (y - x)
    rest = float(np.sum((y - x) ** 2) - np.sum(change**2))
    best, chosen = np.inf, _RIDGES[-1]
    for ridge in _RIDGES:
        kept = s**2 / (s**2 + ridge * scale)
        residual = rest + float(np.sum(((1 - kept)[:, None] * change) ** 2))
        freedom = len(x) - 1 - float(kept.sum())
        score = residual / freedom**2 if freedom > 0 else np.inf
        if score < best:
            best, chosen = score, ridge
    gain = s / (s**2 + chosen * scale)
    moved = others.astype(np.float64) - mean_x
    return np.asarray(moved + moved @ (vt.T * gain) @ change + mean_y, dtype=np.float32)
