"""What towers that have not seen a row say of it, for a stack: their features, or their predictions.

A tower fits its own training rows far better than new ones, so a readout trained on those in-sample features
learns to trust the tower that overfits most. Out-of-fold features say what a tower knows of rows that it has
not seen: the training rows are dealt into groups, and for each group a tower is trained on the others.

Hidden units of two trainings are not the same functions, so the features of such an inner tower are mapped onto
those of the full tower, by ridge regression towards the identity on the rows that the inner tower was trained on.
Inner towers start from the full tower's initial weights, which keeps the two close.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from train.config.config import TrainConfig
from train.features.featurizers import Featurizer
from train.models.fitting import FittedModel, FittedNetwork, Shown, fit_phases

__all__ = ["align", "deal", "out_of_fold", "unseen_predictions"]

_RIDGES = tuple(10.0**power for power in range(-3, 4))


def out_of_fold(
    towers: Mapping[str, tuple[TrainConfig, FittedNetwork, Mapping[str, int]]],
    shown: Shown,
    values: NDArray[np.float64],
    *,
    groups: Sequence[str],
    seed: int,
    backbones: Mapping[str, Featurizer],
    n_groups: int = 5,
) -> NDArray[np.float32]:
    """Joined tower features of training rows, each of towers that were not trained on the row.

    Parameters
    ----------
    towers
        By modality: its config, the full tower, and the epochs that each of its phases was trained for.
    shown, values
        The N rows that the full towers were fitted to; values in the unit of the target.
    groups
        What must stay together, for each row: its material.
    seed
        That of the full towers' fold.
    backbones
        Pre-trained backbones by modality.
    n_groups
        Inner towers of each modality.

    Returns
    -------
    NDArray
        (N, sum of widths), in the order of ``towers``, in the full towers' bases.
    """
    dealt = deal(groups, n_groups, seed=seed)
    parts = []
    for modality, (config, full, epochs) in towers.items():
        reference = full.encode(shown)
        features = np.empty_like(reference)
        own = {name: backbone for name, backbone in backbones.items() if name == modality}
        for held, kept, inner in _inner(config, shown, values, dealt, seed=seed, epochs=epochs, backbones=own):
            assert isinstance(inner, FittedNetwork)
            features[held] = align(inner.encode(shown.take(kept)), reference[kept], inner.encode(shown.take(held)))
        parts.append(features)
    return np.concatenate(parts, axis=1)


def unseen_predictions(
    config: TrainConfig,
    shown: Shown,
    values: NDArray[np.float64],
    *,
    epochs: Mapping[str, int],
    groups: Sequence[str],
    seed: int,
    backbones: Mapping[str, Featurizer],
    n_groups: int = 5,
) -> NDArray[np.float64]:
    """Predictions of one tower's kind for training rows, each by a tower that was not trained on the row.

    Parameters
    ----------
    config
        Of the tower.
    shown, values
        The N training rows; values in the unit of the target.
    epochs
        Those that each phase of the full tower was trained for.
    groups
        What must stay together, for each row: its material.
    seed
        That of the full tower's fold.
    backbones
        The tower's pre-trained backbone, by modality.
    n_groups
        Inner towers.

    Returns
    -------
    NDArray
        (N,), in the unit of the target.
    """
    dealt = deal(groups, n_groups, seed=seed)
    said = np.empty(len(shown))
    for held, _, inner in _inner(config, shown, values, dealt, seed=seed, epochs=epochs, backbones=backbones):
        said[held] = inner.predict(shown.take(held))
    return said


def deal(groups: Sequence[str], n_groups: int, *, seed: int) -> NDArray[np.int64]:
    """Deal rows into groups of nearly equal size, by a seeded hash; what has one name stays together.

    Parameters
    ----------
    groups
        (N,) names.
    n_groups
        Into how many.
    seed
        Another one deals anew.

    Returns
    -------
    NDArray
        (N,), from 0 to ``n_groups - 1``.
    """
    order = sorted(set(groups), key=lambda name: hashlib.sha256(f"{seed}:group:{name}".encode()).digest())
    place = {name: rank % n_groups for rank, name in enumerate(order)}
    return np.array([place[name] for name in groups], dtype=np.int64)


def _inner(
    config: TrainConfig,
    shown: Shown,
    values: NDArray[np.float64],
    dealt: NDArray[np.int64],
    *,
    seed: int,
    epochs: Mapping[str, int],
    backbones: Mapping[str, Featurizer],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], FittedModel]]:
    """For each group that rows were dealt into: the rows held back, the others, and the tower trained on those."""
    for group in np.unique(dealt):
        held, kept = np.flatnonzero(dealt == group), np.flatnonzero(dealt != group)
        *_, inner = fit_phases(config, shown.take(kept), values[kept], seed=seed, epochs=epochs, backbones=backbones)
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
