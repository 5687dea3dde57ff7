"""What carries a prediction: Shapley values of parts, and integrated gradients of pixels.

Both divide a difference of two predictions among what makes it, without remainder.

Shapley values (L. S. Shapley, Contributions to the Theory of Games II, 307 (1953); of models: S. M. Lundberg and
S.-I. Lee, NIPS 2017) give each of n parts the mean of what it adds to a prediction, over all orders in which the parts
can come: they sum to the prediction with all parts minus that with none (efficiency). Of a few parts they are exact; of
more they are means over random orders and their reverses (R. Mitchell, J. Cooper, E. Frank, G. Holmes, Journal of
Machine Learning Research 23, 43 (2022)), which keeps the sum exact, and come with their standard error.

Integrated gradients (M. Sundararajan, A. Taly, Q. Yan, ICML 2017) add up the gradient along a straight line from a
baseline to an input: they sum to the difference of the two predictions (completeness) as the steps become small, and
:func:`integrated_gradients` makes them smaller until they do.

Nothing here knows what a part is.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from registry.errors import ModelError

__all__ = ["Path", "Shapley", "integrated_gradients", "shapley"]

Coalitions: TypeAlias = Callable[[NDArray[np.bool_]], NDArray[np.float64]]
"""Predictions (M,) of M coalitions (M, n): which of the n parts are there."""

EXACT_PARTS = 6
"""Parts up to which every coalition is asked for: 2^6 predictions."""


@dataclass(frozen=True)
class Shapley:
    """The shares of n parts in a prediction."""

    values: NDArray[np.float64]
    """(n,), in the unit of the prediction; they sum to ``full - empty``"""
    error: NDArray[np.float64]
    """(n,), standard error of each over the orders that were drawn; 0 where they are exact"""
    empty: float
    """Prediction without any part."""
    full: float
    """Prediction with all of them."""


@dataclass(frozen=True)
class Path:
    """Integrated gradients of an input."""

    values: NDArray[np.float64]
    """As the input, in the unit of the prediction"""
    start: float
    """Prediction of the baseline."""
    end: float
    """Prediction of the input."""
    steps: int

    @property
    def gap(self) -> float:
        """What the values miss of ``end - start``."""
        return float(self.values.sum()) - (self.end - self.start)


def shapley(value: Coalitions, n: int, *, orders: int = 16, seed: int = 0) -> Shapley:
    """Shapley values of n parts.

    Parameters
    ----------
    value
        Predictions of coalitions.
    n
        Number of parts.
    orders
        Random orders, each with its reverse, where there are too many parts for all coalitions.
    seed
        Of the orders.

    Raises
    ------
    ModelError
        If there is no part.
    """
    if n < 1:
        raise ModelError("a prediction has no parts to share it among")
    return _exact(value, n) if n <= EXACT_PARTS else _sampled(value, n, orders, seed)


def integrated_gradients(
    model: Callable[[Tensor], Tensor],
    start: Tensor,
    end: Tensor,
    *,
    outer: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = None,
    tolerance: float,
    share: float = 0.01,
    steps: int = 32,
    most: int = 256,
    batch: int = 16,
) -> Path:
    """Integrated gradients along a straight line, with as many steps as completeness needs.

    Parameters
    ----------
    model
        Maps inputs (B, ...) to predictions (B,), differentiably.
    start, end
        Baseline and input, (...).
    outer
        A function of the prediction, (M,) -> (M,), that is not differentiable: a regressor that a tower feeds, for
        instance. Its slope is taken between neighbouring points of the line, so that the sum stays complete.
    tolerance
        Gap that is small enough, in the unit of the prediction.
    share
        Gap that is small enough as a share of the difference of the two predictions; the larger counts.
    steps
        Steps to begin with; doubled until the gap is small enough.
    most
        Steps at most. The gap that is left then is told by :attr:`Path.gap`.
    batch
        Points at a time.
    """
    while True:
        path = _along(model, start, end, outer, steps, batch)
        if abs(path.gap) <= max(tolerance, share * abs(path.end - path.start)) or 2 * steps > most:
            return path
        steps *= 2


def _along(
    model: Callable[[Tensor], Tensor],
    start: Tensor,
    end: Tensor,
    outer: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None,
    steps: int,
    batch: int,
) -> Path:
    difference = end - start
    shape = (-1, *([1] * difference.ndim))
    middles = (torch.arange(steps, dtype=start.dtype) + 0.5) / steps
    weights, said = np.ones(steps), None
    if outer is None:
        with torch.no_grad():
            ends = model(torch.stack([start, end])).double().numpy()
        first, last = float(ends[0]), float(ends[1])
    else:
        edges = torch.arange(steps + 1, dtype=start.dtype) / steps
        with torch.no_grad():
            parts = [model(start + part.view(shape) * difference) for part in edges.split(batch)]
        said = torch.cat(parts).double().numpy()
        beyond = np.asarray(outer(said), dtype=np.float64)
        moved = np.diff(said)
        flat = np.abs(moved) < 1e-12 * max(1.0, float(np.abs(said).max()))
        weights = np.where(flat, 0.0, np.diff(beyond) / np.where(flat, 1.0, moved))
        first, last = float(beyond[0]), float(beyond[-1])
    total = torch.zeros_like(difference, dtype=torch.float64)
    for at, part in zip(itertools.count(0, batch), middles.split(batch), strict=False):
        points = (start + part.view(shape) * difference).detach().requires_grad_(True)
        # Each point has a prediction of its own: the gradient of the weighted sum is that of each, weighted.
        scale = torch.as_tensor(weights[at : at + len(part)], dtype=start.dtype)
        (slopes,) = torch.autograd.grad((model(points) * scale).sum(), points)
        total += slopes.sum(dim=0).double()
    values = (total * difference.double() / steps).numpy()
    return Path(values, first, last, steps)


def _exact(value: Coalitions, n: int) -> Shapley:
    masks = np.array(list(itertools.product((False, True), repeat=n)), dtype=bool)
    said = np.asarray(value(masks), dtype=np.float64)
    index = {tuple(mask): i for i, mask in enumerate(masks.tolist())}
    shares = np.zeros(n)
    for i, mask in enumerate(masks.tolist()):
        size = sum(mask)
        for part in range(n):
            if not mask[part]:
                joined = mask.copy()
                joined[part] = True
                weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
                shares[part] += weight * (said[index[tuple(joined)]] - said[i])
    return Shapley(shares, np.zeros(n), float(said[0]), float(said[-1]))


def _sampled(value: Coalitions, n: int, orders: int, seed: int) -> Shapley:
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(n) for _ in range(orders)]
    both = [order for one in drawn for order in (one, one[::-1])]
    masks = np.zeros((len(both), n + 1, n), dtype=bool)
    for row, order in enumerate(both):
        for step, part in enumerate(order):
            masks[row, step + 1 :, part] = True
    # Every order begins with nothing and ends with everything: those are asked for once.
    inner = masks[:, 1:-1].reshape(-1, n)
    unique, back = np.unique(np.concatenate([[masks[0, 0], masks[0, -1]], inner]), axis=0, return_inverse=True)
    said = np.asarray(value(unique), dtype=np.float64)[back.reshape(-1)]
    empty, full = said[0], said[1]
    chains = np.column_stack([np.full(len(both), empty), said[2:].reshape(len(both), n - 1), np.full(len(both), full)])
    gains = np.empty((len(both), n))
    for row, order in enumerate(both):
        gains[row, order] = np.diff(chains[row])
    pairs = gains.reshape(orders, 2, n).mean(axis=1)
    error = pairs.std(axis=0, ddof=1) / math.sqrt(orders) if orders > 1 else np.full(n, np.nan)
    return Shapley(pairs.mean(axis=0), error, float(empty), float(full))
