"""Attribution of predictions: Shapley values of parts, and integrated gradients of inputs.

Both distribute a difference of two predictions over the inputs, without remainder.

The Shapley value of a part (L. S. Shapley, Contributions to the Theory of Games II, 307 (1953); for models: S. M.
Lundberg and S.-I. Lee, NIPS 2017) is the mean change of the prediction when the part is added, over all orders of
adding the n parts. The values sum to the prediction with all parts minus that without any (efficiency). For few parts
they are exact; for more they are means over random orders and their reverses (R. Mitchell, J. Cooper, E. Frank, G.
Holmes, Journal of Machine Learning Research 23, 43 (2022)), with a standard error; the sum is exact in both cases.

Integrated gradients (M. Sundararajan, A. Taly, Q. Yan, ICML 2017) are the integral of the gradient along a straight
line from a baseline to an input. They sum to the difference of the two predictions (completeness) in the limit of small
steps; :func:`integrated_gradients` refines steps until the sum is accurate.

The functions are independent of what the parts are.
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

__all__ = ["Effort", "Outer", "Path", "Shapley", "integrated_gradients", "shapley"]

Coalitions: TypeAlias = Callable[[NDArray[np.bool_]], NDArray[np.float64]]
"""Function from M coalitions (M, n), each a mask of present parts, to their predictions (M,)."""

Outer: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Function of predictions, (M,) -> (M,), that is not differentiable."""

EXACT_PARTS = 6
"""Largest number of parts for which all coalitions are predicted: 2^6 predictions."""


@dataclass(frozen=True)
class Shapley:
    """Contributions of n parts to a prediction."""

    values: NDArray[np.float64]
    """(n,), in the unit of the prediction; they sum to ``full - empty``"""
    error: NDArray[np.float64]
    """(n,), standard error of each over the random orders; 0 if the values are exact"""
    empty: float
    """Prediction without any part."""
    full: float
    """Prediction with all parts."""


@dataclass(frozen=True)
class Path:
    """Integrated gradients of an input."""

    values: NDArray[np.float64]
    """Same shape as the input, in the unit of the prediction"""
    start: float
    """Prediction of the baseline."""
    end: float
    """Prediction of the input."""
    steps: int

    @property
    def gap(self) -> float:
        """Error of the sum: sum of the values minus ``end - start``."""
        return float(self.values.sum()) - (self.end - self.start)


def shapley(value: Coalitions, n: int, *, orders: int = 16, seed: int = 0) -> Shapley:
    """Shapley values of n parts.

    Parameters
    ----------
    value
        Function that predicts coalitions.
    n
        Number of parts.
    orders
        Number of random orders, each used with its reverse, if there are more than :data:`EXACT_PARTS` parts.
    seed
        Seed of the orders.

    Raises
    ------
    ModelError
        If ``n`` is less than 1.
    """
    if n < 1:
        raise ModelError("an attribution needs at least one part")
    return _exact(value, n) if n <= EXACT_PARTS else _sampled(value, n, orders, seed)


@dataclass(frozen=True)
class Effort:
    """Steps of integrated gradients."""

    steps: int = 32
    """Initial number of steps."""
    max_gradients: int = 320
    """Largest number of gradients; the remaining error is :attr:`Path.gap`."""
    batch: int = 16
    """Number of points that are evaluated, and of steps that are halved, at once."""


def integrated_gradients(
    model: Callable[[Tensor], Tensor],
    start: Tensor,
    end: Tensor,
    *,
    outer: Outer | None = None,
    tolerance: float,
    relative_tolerance: float = 0.01,
    effort: Effort | None = None,
) -> Path:
    """Integrated gradients along a straight line, with as many steps as completeness needs.

    Networks of rectified units have kinks along the line, so that a gradient does not predict the next step. The error
    of a step is known from the predictions at its two ends; the steps with the largest errors are halved.

    Parameters
    ----------
    model
        Maps inputs (B, ...) to predictions (B,), differentiably.
    start, end
        Baseline and input, (...).
    outer
        Function of the prediction, (M,) -> (M,), that is not differentiable, for instance a regressor on a tower's
        prediction. Its slope is the difference quotient over each step, so that completeness is kept.
    tolerance
        Accepted error of the sum, in the unit of the prediction.
    relative_tolerance
        Accepted error of the sum, relative to the difference of the two predictions; the larger tolerance applies.
    effort
        Number of steps; default: ``Effort()``.
    """
    effort = effort or Effort()
    steps, max_gradients, batch = effort.steps, effort.max_gradients, effort.batch
    line = _Line(model, start, end, outer, batch)
    edges = np.linspace(0, 1, steps + 1)
    values = line.values(edges)
    pieces = line.pieces(edges[:-1], edges[1:], values[:-1], values[1:])
    evaluated = steps
    while abs(sum(piece.missing for piece in pieces)) > max(tolerance, relative_tolerance * abs(line.span)):
        if evaluated + 2 > max_gradients:
            break
        pieces.sort(key=lambda piece: -abs(piece.missing))
        count = min(batch, (max_gradients - evaluated) // 2)
        worst, pieces = pieces[:count], pieces[count:]
        middles = np.array([(piece.left + piece.right) / 2 for piece in worst])
        at_middle = line.values(middles)
        ends = [(p.left, m, p.at_left, v) for p, m, v in zip(worst, middles, at_middle, strict=True)]
        ends += [(m, p.right, v, p.at_right) for p, m, v in zip(worst, middles, at_middle, strict=True)]
        pieces += line.pieces(*(np.array(column) for column in zip(*ends, strict=True)))
        evaluated += 2 * len(worst)
    total = np.asarray(np.sum([piece.shares for piece in pieces], axis=0, dtype=np.float64))
    first, last = line.ends
    return Path(total, first, last, len(pieces))


@dataclass(frozen=True)
class _Piece:
    """One step on the line."""

    left: float
    right: float
    at_left: float
    """Prediction at the left end, before ``outer``."""
    at_right: float
    shares: NDArray[np.float32]
    """Same shape as the input, after ``outer``."""
    missing: float
    """Difference between the ends minus the sum of the shares."""


class _Line:
    """A model along a straight line."""

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        start: Tensor,
        end: Tensor,
        outer: Outer | None,
        batch: int,
    ) -> None:
        self._model, self._start, self._outer, self._batch = model, start, outer, batch
        self._difference = end - start
        self.ends = tuple(self._beyond(self.values(np.array([0.0, 1.0]))).tolist())
        self.span = float(self.ends[1] - self.ends[0])

    def values(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predictions at places (M,) between 0 and 1."""
        batches = [places[at : at + self._batch] for at in range(0, len(places), self._batch)]
        with torch.no_grad():
            return np.concatenate([self._model(self._points(batch)).double().numpy() for batch in batches])

    def pieces(
        self,
        left: NDArray[np.float64],
        right: NDArray[np.float64],
        at_left: NDArray[np.float64],
        at_right: NDArray[np.float64],
    ) -> list[_Piece]:
        """Steps (M,) with the gradients at their middles."""
        made = self._beyond(at_right) - self._beyond(at_left)
        moved = at_right - at_left
        flat = np.abs(moved) < 1e-9 * np.maximum(1.0, np.abs(at_left))
        slopes = np.ones(len(left)) if self._outer is None else np.where(flat, 0.0, made / np.where(flat, 1.0, moved))
        found: list[_Piece] = []
        for at in range(0, len(left), self._batch):
            chosen = slice(at, at + self._batch)
            points = self._points((left[chosen] + right[chosen]) / 2).detach().requires_grad_(True)
            # Predictions are independent, so the gradient of their sum is the gradient of each.
            (gradients,) = torch.autograd.grad(self._model(points).sum(), points)
            for i, gradient in enumerate(gradients, start=at):
                shares = (gradient * self._difference).numpy() * np.float32((right[i] - left[i]) * slopes[i])
                missing = float(made[i]) - float(shares.sum(dtype=np.float64))
                found.append(
                    _Piece(float(left[i]), float(right[i]), float(at_left[i]), float(at_right[i]), shares, missing)
                )
        return found

    def _points(self, places: NDArray[np.float64]) -> Tensor:
        along = torch.as_tensor(places, dtype=self._start.dtype).view(-1, *([1] * self._start.ndim))
        return self._start + along * self._difference

    def _beyond(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values if self._outer is None else np.asarray(self._outer(values), dtype=np.float64)


def _exact(value: Coalitions, n: int) -> Shapley:
    masks = np.array(list(itertools.product((False, True), repeat=n)), dtype=bool)
    predictions = np.asarray(value(masks), dtype=np.float64)
    index = {tuple(mask): i for i, mask in enumerate(masks.tolist())}
    shares = np.zeros(n)
    for i, mask in enumerate(masks.tolist()):
        size = sum(mask)
        for part in range(n):
            if not mask[part]:
                joined = mask.copy()
                joined[part] = True
                weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
                shares[part] += weight * (predictions[index[tuple(joined)]] - predictions[i])
    return Shapley(shares, np.zeros(n), float(predictions[0]), float(predictions[-1]))


def _sampled(value: Coalitions, n: int, orders: int, seed: int) -> Shapley:
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(n) for _ in range(orders)]
    both = [order for one in drawn for order in (one, one[::-1])]
    masks = np.zeros((len(both), n + 1, n), dtype=bool)
    for row, order in enumerate(both):
        for step, part in enumerate(order):
            masks[row, step + 1 :, part] = True
    # All orders share the empty and the full coalition, which are predicted once.
    inner = masks[:, 1:-1].reshape(-1, n)
    unique, back = np.unique(np.concatenate([[masks[0, 0], masks[0, -1]], inner]), axis=0, return_inverse=True)
    predictions = np.asarray(value(unique), dtype=np.float64)[back.reshape(-1)]
    empty, full = predictions[0], predictions[1]
    chains = np.column_stack(
        [np.full(len(both), empty), predictions[2:].reshape(len(both), n - 1), np.full(len(both), full)]
    )
    gains = np.empty((len(both), n))
    for row, order in enumerate(both):
        gains[row, order] = np.diff(chains[row])
    pairs = gains.reshape(orders, 2, n).mean(axis=1)
    error = pairs.std(axis=0, ddof=1) / math.sqrt(orders) if orders > 1 else np.full(n, np.nan)
    return Shapley(pairs.mean(axis=0), error, float(empty), float(full))
