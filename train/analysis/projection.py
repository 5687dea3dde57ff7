"""Two-dimensional projections of the vectors of an encoder, for maps of crystals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry.errors import ConfigurationError, QueryError

__all__ = ["METHODS", "Projection", "project"]

METHODS = ("pca", "umap")
"""Names of the projection methods."""


@dataclass(frozen=True)
class Projection:
    """Points of a projection."""

    points: NDArray[np.float64]
    """(N, 2), dimensionless."""
    axes: tuple[str, str]
    """Labels of the axes."""
    description: str
    """Method and its parameters, on one line."""


def project(vectors: ArrayLike, *, method: str = "pca", seed: int = 0) -> Projection:
    """Project vectors onto a plane by their directions, as a cosine search compares them.

    ``pca`` is a linear projection, so that projected distances are at most the true ones; the explained share of the
    variance is reported. ``umap`` (L. McInnes, J. Healy, J. Melville, arXiv:1802.03426) preserves neighbourhoods, but
    not distances.

    Parameters
    ----------
    vectors
        (N, D), N at least 3, all different from zero.
    method
        One of :data:`METHODS`.
    seed
        Seed of ``umap``. ``pca`` is deterministic; the largest component of each axis is positive.

    Raises
    ------
    ConfigurationError
        If the method is unknown, or its package is not installed.
    QueryError
        If there are too few vectors, or one is zero or not finite.
    """
    if method not in METHODS:
        raise ConfigurationError(f"no projection {method!r}; choose from {', '.join(METHODS)}")
    array = np.asarray(vectors, dtype=np.float64)
    if array.ndim != 2 or len(array) < 3:
        raise QueryError(f"vectors of shape {array.shape} cannot be projected; at least 3 crystals are needed")
    norms = np.linalg.norm(array, axis=1, keepdims=True)
    if not np.isfinite(array).all() or not (norms > 0).all():
        raise QueryError("a vector is zero or not finite and cannot be projected")
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
        f"Principal components of the directions; the plane explains {shares.sum():.0%} of the variance",
    )


def _umap(unit: NDArray[np.float64], seed: int) -> Projection:
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about optional parts of numba
            from umap import UMAP
    except ImportError:
        raise ConfigurationError("umap is not installed; install umap-learn, or use --method pca") from None
    neighbours = min(15, len(unit) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the single thread that a seed implies
        points = UMAP(n_neighbors=neighbours, min_dist=0.1, metric="cosine", random_state=seed).fit_transform(unit)
    return Projection(
        np.asarray(points, dtype=np.float64),
        ("UMAP, first axis", "UMAP, second axis"),
        f"UMAP of cosine distances, {neighbours} neighbours, seed {seed}; large distances are not meaningful",
    )
