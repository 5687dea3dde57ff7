"""Prediction intervals: normalised CV+, empirical coverage, and distance from the training domain.

The intervals are those of CV+ (R. F. Barber, E. J. Candès, A. Ramdas, R. J. Tibshirani, Annals of Statistics 49,
486 (2021), section 3). Each cross-validated row i was predicted by the model of a fold that was not trained on it, with
the absolute residual ``R_i``; a new crystal x is predicted by the models of all folds. The interval of confidence
``1 - a`` goes from the ``floor(a (n + 1))``-th smallest of ``m_i(x) - R_i`` to the ``ceil((1 - a) (n + 1))``-th
smallest of ``m_i(x) + R_i``, where ``m_i`` is the model of the fold that left row i out. If the new crystal is
exchangeable with the rows of the split, the interval contains the true value with a probability of at least
``1 - 2 a - sqrt(2 / n)`` (their theorem 4), and in practice about ``1 - a``. Two departures from exchangeability are
not covered by the theorem: the split's groups of one material, and a hyper-parameter search on the same folds.

Residuals are divided by a difficulty before they are ranked, and multiplied by that of the new crystal
(H. Papadopoulos, V. Vovk, A. Gammerman, Journal of Artificial Intelligence Research 40, 815 (2011)): a crystal far from
all training rows gets a wider interval. The difficulty depends on inputs alone, never on labels, and a row's own fold
is excluded from its neighbours as it is excluded from its model, so that rows and new crystals are treated alike. The
standard deviation over the models of the folds cannot serve as difficulty: only one of them is out of fold for a
cross-validated row.

Where a target has a lower bound (a bulk modulus is not negative), intervals are intersected with the possible values.
This removes no value that could be true, and so does not reduce the coverage.

This is own code because conformal libraries do not combine CV+ with a difficulty that leaves a row's own fold out.
This module uses neither the database nor networks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry.errors import ConfigurationError, ModelError
from train.models.scalers import FEATURE_LIMIT

__all__ = [
    "CONFIDENCE",
    "DISTANCE_WEIGHT",
    "DOMAIN_QUANTILE",
    "Calibration",
    "Coverage",
    "Domain",
    "Intervals",
    "clopper_pearson",
    "coverage",
    "cv_plus",
]

CONFIDENCE = 0.9
"""Confidence of the intervals that the registry stores."""

NEIGHBOURS = 5
"""Number of nearest neighbours, of which the mean distance is a crystal's distance from the training rows."""

DOMAIN_QUANTILE = 0.99
"""Share of the cross-validated rows that are inside the domain, by their distance to rows of other folds."""

DISTANCE_WEIGHT = 5.0
"""Weight w in the difficulty ``1 + w (d / median of d)^2`` of a crystal at the distance d.

In cross-validation on the bundled sample (twelve models of three targets) this form and weight have the best interval
score, and cover 0.90 of the farthest fifth of the rows, where intervals of one width cover 0.78."""

_CHUNK = 256
"""Crystals that are processed at once."""


@dataclass(frozen=True)
class Intervals:
    """Intervals of M crystals."""

    confidence: float
    """Nominal coverage, between 0 and 1."""
    lower: NDArray[np.float64]
    """(M,), unit of the target"""
    upper: NDArray[np.float64]
    """(M,), unit of the target"""
    novelty: NDArray[np.float64] | None
    """(M,), distance to the neighbours divided by the threshold of the domain; None for a model without features"""

    def __len__(self) -> int:
        return len(self.lower)

    @property
    def out_of_domain(self) -> NDArray[np.bool_] | None:
        """(M,), whether a crystal is farther away than 99 % of the cross-validated rows; None without features."""
        return None if self.novelty is None else self.novelty > 1


@dataclass(frozen=True)
class Coverage:
    """Empirical coverage of n intervals, with the exact binomial 95 % interval of the share."""

    confidence: float
    """Nominal coverage."""
    n: int
    covered: int
    low: float
    """Lower end of the Clopper-Pearson interval."""
    high: float
    """Upper end of the Clopper-Pearson interval."""
    median_width: float
    """In the unit of the target."""

    @property
    def share(self) -> float:
        """Empirical coverage: ``covered / n``."""
        return self.covered / self.n


class Domain:
    """Region of the feature space that the cross-validated rows of a model occupy.

    Each block of features (one for each modality) is standardised by the rows outside a fold and clamped to three
    standard deviations; the squared distance is the mean over a block's features, averaged over the blocks.

    Parameters
    ----------
    features
        By modality, (N, D); N rows.
    folds
        (N,), fold of each row.

    Raises
    ------
    ModelError
        If there is no block, or a fold leaves no row outside.
    """

    def __init__(self, features: Mapping[str, NDArray[np.floating[Any]]], folds: NDArray[np.int64]) -> None:
        if not features:
            raise ModelError("a model without features has no domain")
        self.folds = folds
        self._spaces = {int(fold): _Space(features, folds != fold) for fold in np.unique(folds)}
        self.rows = np.empty(len(folds))
        """(N,), distance of each row to its neighbours in the other folds"""
        for fold, space in self._spaces.items():
            own = np.flatnonzero(folds == fold)
            self.rows[own] = space.distances({name: values[own] for name, values in features.items()})
        self.median = float(np.median(self.rows)) or 1.0
        self.threshold = float(np.quantile(self.rows, DOMAIN_QUANTILE, method="higher")) or 1.0

    def distances(self, features: Mapping[str, NDArray[np.floating[Any]]]) -> dict[int, NDArray[np.float64]]:
        """By fold, the distances (M,) of M crystals to their neighbours among the rows outside it."""
        return {fold: space.distances(features) for fold, space in self._spaces.items()}


class Calibration:
    """Out-of-fold predictions of the N cross-validated rows of a model, from which its intervals are computed.

    Parameters
    ----------
    values
        (N,), true values, in the unit of the target.
    predicted
        (N,), out-of-fold prediction of each row.
    folds
        (N,), fold of each row.
    features
        Input features of the model by modality, (N, D); empty for a model without features.
    distance_weight
        See :data:`DISTANCE_WEIGHT`; 0 gives every crystal the same difficulty.
    lower_bound
        Smallest possible value, in the unit of the target; None if there is none. The lower end of an interval is at
        least this bound, or the prediction if that is lower; the upper end is at least the bound.

    Raises
    ------
    ModelError
        If the lengths differ or there are fewer than two folds.
    """

    def __init__(
        self,
        values: ArrayLike,
        predicted: ArrayLike,
        folds: ArrayLike,
        *,
        features: Mapping[str, NDArray[np.floating[Any]]] | None = None,
        distance_weight: float = DISTANCE_WEIGHT,
        lower_bound: float | None = None,
    ) -> None:
        self.values = np.asarray(values, dtype=np.float64)
        self.predicted = np.asarray(predicted, dtype=np.float64)
        self.folds = np.asarray(folds, dtype=np.int64)
        if self.values.ndim != 1 or not self.values.shape == self.predicted.shape == self.folds.shape:
            raise ModelError(
                f"{self.values.shape} values, {self.predicted.shape} predictions and {self.folds.shape} folds of"
                " cross-validated rows do not fit"
            )
        if len(np.unique(self.folds)) < 2:
            raise ModelError("intervals need the out-of-fold predictions of at least two folds")
        self.residuals = np.abs(self.values - self.predicted)
        self.domain = Domain(features, self.folds) if features else None
        self._weight = distance_weight
        self._bound = -math.inf if lower_bound is None else lower_bound
        self._difficulty = self._scale(self.domain.rows) if self.domain else np.ones(len(self))

    def __len__(self) -> int:
        return len(self.values)

    def intervals(
        self,
        fold_predictions: Mapping[int, NDArray[np.float64]],
        *,
        features: Mapping[str, NDArray[np.floating[Any]]] | None = None,
        value: NDArray[np.float64] | None = None,
        confidence: float = CONFIDENCE,
    ) -> Intervals:
        """Intervals of M crystals that no model was trained on.

        Parameters
        ----------
        fold_predictions
            By fold, the predictions of its model, (M,), in the unit of the target.
        features
            Their input features by modality, (M, D).
        value
            (M,), predictions of the refit. An interval that does not contain it is widened until it does, which can
            only increase its coverage.
        confidence
            Nominal coverage, between 0 and 1.

        Raises
        ------
        ConfigurationError
            If the confidence is not between 0 and 1, or needs more rows.
        ModelError
            If a fold or the features are missing.
        """
        self.check(confidence)
        if missing := sorted({int(fold) for fold in np.unique(self.folds)} - set(fold_predictions)):
            raise ModelError(f"no model of fold {missing[0]} is there; its residuals need it: train the model again")
        distances = self._distances(features)
        scales = {
            fold: np.ones(len(v)) if distances is None else self._scale(distances[fold])
            for fold, v in fold_predictions.items()
        }
        lower, upper = cv_plus(
            self.residuals / self._difficulty, self.folds, fold_predictions, confidence=confidence, difficulty=scales
        )
        lower, upper = self._possible(lower, upper)
        if value is not None:
            lower, upper = np.minimum(lower, value), np.maximum(upper, value)
        return Intervals(confidence, lower, upper, self._novelty(distances))

    def out_of_fold(self, *, confidence: float = CONFIDENCE) -> Intervals:
        """Intervals of the N cross-validated rows around their out-of-fold predictions, in their order.

        Those of a fold are computed from the residuals of the other folds, so that no row affects its own interval.
        """
        lower, upper = np.empty(len(self)), np.empty(len(self))
        scores = self.residuals / self._difficulty
        for fold in np.unique(self.folds):
            own = self.folds == fold
            half = _quantile(scores[~own][:, None], confidence, int((~own).sum()))[0] * self._difficulty[own]
            lower[own], upper[own] = self._possible(self.predicted[own] - half, self.predicted[own] + half)
        lower = np.minimum(lower, self.predicted)
        novelty = None if self.domain is None else self.domain.rows / self.domain.threshold
        return Intervals(confidence, lower, upper, novelty)

    def check(self, confidence: float) -> None:
        """Raise for a confidence that the rows cannot give.

        Raises
        ------
        ConfigurationError
            If it is not between 0 and 1, or needs more rows than there are.
        """
        if not 0 < confidence < 1:
            raise ConfigurationError(
                f"an interval of confidence {confidence:g}; give a number between 0 and 1, for instance 0.9"
            )
        if not self.allows(confidence):
            n = self._fewest
            raise ConfigurationError(
                f"an interval of confidence {confidence:g} from {n} residuals would be infinite; choose at most"
                f" {math.floor(1000 * n / (n + 1)) / 1000:g}"
            )

    def allows(self, confidence: float) -> bool:
        """Whether there are enough rows for intervals of a confidence."""
        return math.ceil(confidence * (self._fewest + 1) - 1e-9) <= self._fewest

    @property
    def _fewest(self) -> int:
        """Size of the smallest set of residuals that an interval is computed from: all folds but the largest."""
        return len(self) - int(np.unique(self.folds, return_counts=True)[1].max())

    def _possible(
        self, lower: NDArray[np.float64], upper: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The intersection with the possible values; an interval entirely below them shrinks to the bound."""
        return np.maximum(lower, self._bound), np.maximum(upper, self._bound)

    def _scale(self, distances: NDArray[np.float64]) -> NDArray[np.float64]:
        median = self.domain.median if self.domain else 1.0
        return 1 + self._weight * (distances / median) ** 2

    def _distances(
        self, features: Mapping[str, NDArray[np.floating[Any]]] | None
    ) -> dict[int, NDArray[np.float64]] | None:
        if self.domain is None:
            return None
        if not features:
            raise ModelError("the intervals of this model need its input features")
        return self.domain.distances(features)

    def _novelty(self, distances: Mapping[int, NDArray[np.float64]] | None) -> NDArray[np.float64] | None:
        if self.domain is None or distances is None:
            return None
        # The distance of a row of the split is to the rows outside one fold; the mean over folds is its counterpart.
        return np.asarray(np.mean(list(distances.values()), axis=0) / self.domain.threshold)


def cv_plus(
    residuals: NDArray[np.float64],
    folds: NDArray[np.int64],
    fold_predictions: Mapping[int, NDArray[np.float64]],
    *,
    confidence: float,
    difficulty: Mapping[int, NDArray[np.float64]] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper ends of CV+ intervals, (M,) each; formula and source in the module's docstring.

    Parameters
    ----------
    residuals
        (N,), absolute out-of-fold residuals, divided by the rows' difficulties.
    folds
        (N,), fold of each row.
    fold_predictions
        By fold, the predictions of its model for M crystals.
    confidence
        Nominal coverage, 1 - a.
    difficulty
        By fold, the difficulties (M,) of the crystals; None if all are 1.

    Raises
    ------
    ConfigurationError
        If the confidence needs more residuals than there are.
    """
    n, m = len(residuals), len(next(iter(fold_predictions.values())))
    lower, upper = np.empty(m), np.empty(m)
    for start in range(0, m, _CHUNK):
        part = slice(start, start + _CHUNK)
        centre = np.stack([fold_predictions[int(fold)][part] for fold in folds])  # N x chunk
        half = residuals[:, None] * (1 if difficulty is None else np.stack([difficulty[int(f)][part] for f in folds]))
        lower[part] = -_quantile(half - centre, confidence, n)
        upper[part] = _quantile(centre + half, confidence, n)
    return lower, upper


def coverage(intervals: Intervals, truth: ArrayLike) -> Coverage:
    """Count the intervals that contain the true value.

    Parameters
    ----------
    intervals
        Of n crystals.
    truth
        (n,), true values.

    Raises
    ------
    ModelError
        If there is no value, or another number of them.
    """
    values = np.asarray(truth, dtype=np.float64)
    if values.shape != intervals.lower.shape or not len(values):
        raise ModelError(f"{values.shape} true values for {intervals.lower.shape} intervals")
    inside = int(((intervals.lower <= values) & (values <= intervals.upper)).sum())
    low, high = clopper_pearson(inside, len(values))
    width = float(np.median(intervals.upper - intervals.lower))
    return Coverage(intervals.confidence, len(values), inside, low, high, width)


def clopper_pearson(k: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Exact binomial interval of a share (C. J. Clopper, E. S. Pearson, Biometrika 26, 404 (1934)).

    Parameters
    ----------
    k, n
        Successes and trials.
    confidence
        Smallest probability that the interval contains the share.

    >>> low, high = clopper_pearson(10, 10)
    >>> round(low, 4), high
    (0.6915, 1.0)
    """
    from scipy.stats import binomtest

    interval = binomtest(k, n).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


class _Space:
    """Standardised rows outside one fold, and distances to them."""

    def __init__(self, features: Mapping[str, NDArray[np.floating[Any]]], rows: NDArray[np.bool_]) -> None:
        if not rows.any():
            raise ModelError("a fold leaves no row outside; the domain needs at least two folds")
        self._moments: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
        for name, values in features.items():
            chosen = values[rows].astype(np.float64)
            deviation = chosen.std(axis=0)
            self._moments[name] = (chosen.mean(axis=0), np.where(deviation > 0, deviation, 1.0))
        self._points = self._standardised({name: values[rows] for name, values in features.items()})
        self._squares = (self._points**2).sum(axis=1)

    def distances(self, features: Mapping[str, NDArray[np.floating[Any]]]) -> NDArray[np.float64]:
        """Mean distance to the nearest neighbours, (M,)."""
        if missing := sorted(set(self._moments) - set(features)):
            raise ModelError(f"the domain of this model needs the {missing[0]} features of a crystal")
        queries = self._standardised(features)
        squared = (queries**2).sum(axis=1)[:, None] - 2 * queries @ self._points.T + self._squares  # M x N
        k = min(NEIGHBOURS, squared.shape[1])
        nearest = np.partition(squared, k - 1, axis=1)[:, :k]
        return np.asarray(np.sqrt(nearest.clip(min=0)).mean(axis=1))

    def _standardised(self, features: Mapping[str, NDArray[np.floating[Any]]]) -> NDArray[np.float64]:
        blocks = []
        for name, (mean, deviation) in self._moments.items():
            block = ((features[name] - mean) / deviation).clip(-FEATURE_LIMIT, FEATURE_LIMIT)
            blocks.append(block / math.sqrt(block.shape[1] * len(self._moments)))
        return np.concatenate(blocks, axis=1)


def _quantile(scores: NDArray[np.float64], confidence: float, n: int) -> NDArray[np.float64]:
    """The ``ceil(confidence (n + 1))``-th smallest of n scores, column by column."""
    rank = math.ceil(confidence * (n + 1) - 1e-9)
    if rank > n:
        raise ConfigurationError(f"an interval of confidence {confidence:g} from {n} residuals would be infinite")
    rank = max(rank, 1)
    return np.asarray(np.partition(scores, rank - 1, axis=0)[rank - 1])
