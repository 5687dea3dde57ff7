"""The vectors of an encoder in a plane, so that a person can look at them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry.errors import ConfigurationError, QueryError

__all__ = ["METHODS", "Projection", "project"]

METHODS = ("pca", "umap")
"""Ways onto the plane."""


@dataclass(frozen=True)
class Projection:
    """Points of a plane."""

    points: NDArray[np.float64]
    """(N, 2), no unit."""
    axes: tuple[str, str]
    """What the axes are."""
    told: str
    """How the plane was made, one line."""


def project(vectors: ArrayLike, *, method: str = "pca", seed: int = 0) -> Projection:
    """Lay vectors out in a plane by their directions, which is what a cosine search goes by.

    ``pca`` turns and cuts, and says how much of the variance the plane holds: distances in it are at most the true
    ones. ``umap`` (L. McInnes, J. Healy, J. Melville, arXiv:1802.03426) keeps neighbours together at the price of
    distances.

    Parameters
    ----------
    vectors
        (N, D), N at least 3, none of them zero.
    method
        One of :data:`METHODS`.
    seed
        Of ``umap``; ``pca`` has no choice but the signs of its axes: the largest part of each is positive.

    Raises
    ------
    ConfigurationError
        If there is no such method, or its package is not installed.
    QueryError
        If there are too few vectors, or one is zero or not finite.
    """
    if method not in METHODS:
        raise ConfigurationError(f"no projection {method!r}; choose from {', '.join(METHODS)}")
    array = np.asarray(vectors, dtype=np.float64)
    if array.ndim != 2 or len(array) < 3:
        raise QueryError(f"vectors of shape {array.shape} make no map; at least 3 crystals are needed")
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    if not np.isfinite(array).all() or not (norms > 0).all():
        raise QueryError("a vector is zero or not finite, and has no place on a map")
    unit = array / norms
    return _pca(unit) if method == "pca" else _umap(unit, seed)


def _pca(unit: NDArray[np.float64]) -> Projection:
    centred = unit - unit.mean(axis=0)
    left, sizes, right = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(unit), 2))
    shares = np.zeros(2)
    total = float((sizes**2).sum())
    for axis in range(min(2, len(sizes))):
        sign = np.sign(right[axis][np.argmax(np.abs(right[axis]))]) or 1.0
        points[:, axis] = sign * left[:, axis] * sizes[axis]
        shares[axis] = sizes[axis] ** 2 / total if total > 0 else 0.0
    return Projection(
        points,
        (f"first axis, {shares[0]:.0%} of the variance", f"second axis, {shares[1]:.0%} of the variance"),
        f"Principal components of the directions; the plane holds {shares.sum():.0%} of the variance",
    )


def _umap(unit: NDArray[np.float64], seed: int) -> Projection:
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numba's and of parts of it that are not installed
            from umap import UMAP
    except ImportError:
        raise ConfigurationError(
            "umap is not installed; `pip install umap-learn` brings it, and --method pca needs nothing"
        ) from None
    neighbours = min(15, len(unit) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one core follows from a seed
        points = UMAP(n_neighbors=neighbours, min_dist=0.1, metric="cosine", random_state=seed).fit_transform(unit)
    return Projection(
        np.asarray(points, dtype=np.float64),
        ("UMAP, first axis", "UMAP, second axis"),
        f"UMAP of cosine distances, {neighbours} neighbours, seed {seed}: near is near, far says nothing",
    )
