"""Paired comparison of two models on the same held-out crystals.

A difference of two R2 on about seventy rows is mostly random. The predictions of the same crystals in the same splits
are compared, pooled over the splits that both models were trained on, and the difference of their RMSE has a bootstrap
interval. If the interval contains zero, the comparison is a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.errors import NotFoundError, QueryError
from registry.properties import property_named

__all__ = ["Comparison", "compare_models", "paired_bootstrap"]

DRAWS = 4000
"""Number of bootstrap draws."""


@dataclass(frozen=True)
class Comparison:
    """Comparison of two models on the rows that both predicted."""

    model: str
    other: str
    target: str
    unit: str
    splits: tuple[str, ...]
    n_rows: int
    """Number of predictions of each model, over all splits and runs."""
    n_crystals: int
    """Number of materials among the rows."""
    rmse: float
    """RMSE of the model, in the unit of the target."""
    other_rmse: float
    difference: float
    """RMSE of the model minus that of the other."""
    low: float
    """Lower end of the 95 % interval of that difference."""
    high: float
    """Upper end of the interval."""

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` if the interval excludes zero, otherwise ``tie``."""
        if self.high < 0:
            return "better"
        return "worse" if self.low > 0 else "tie"

    def to_dict(self) -> dict[str, Any]:
        """All values, and the verdict."""
        return asdict(self) | {"verdict": self.verdict}


_ROWS = """
WITH latest AS (
    SELECT DISTINCT ON (x.name, x.split_id, x.seed) x.id, x.name, x.split_id, x.seed, s.name AS split
    FROM experiments x JOIN splits s ON s.id = x.split_id
    WHERE x.target = :target AND x.name IN (:model, :other) AND x.status = 'finished'
      AND (CAST(:splits AS text[]) IS NULL OR s.name = ANY(CAST(:splits AS text[])))
    ORDER BY x.name, x.split_id, x.seed, x.version DESC
), scored AS (
    SELECT l.name, l.split, l.seed, p.revision_id, p.predicted, p.true_value, c.material_key
    FROM latest l
    JOIN model_versions m ON m.experiment_id = l.id
    JOIN v_predictions p ON p.model_version_id = m.id AND p.subset = :subset
    JOIN crystal_revisions r ON r.id = p.revision_id
    JOIN crystals c ON c.id = r.crystal_id
    WHERE p.true_value IS NOT NULL
)
SELECT a.split, a.material_key, a.true_value, a.predicted, b.predicted AS other
FROM scored a JOIN scored b USING (split, seed, revision_id)
WHERE a.name = :model AND b.name = :other
ORDER BY a.split, a.seed, a.revision_id
"""


def compare_models(
    session: Session,
    model: str,
    other: str,
    target: str,
    *,
    splits: Sequence[str] | None = None,
    subset: str = "holdout",
    seed: int = 0,
) -> Comparison:
    """Compare two models by their predictions for the same rows.

    Parameters
    ----------
    session
        Only read.
    model, other
        Names of models of the target; the newest version of each split and seed counts.
    target
        The property.
    splits
        Names of splits; None for all that both models were trained on.
    subset
        ``holdout``, or ``validation`` for out-of-fold predictions.
    seed
        Seed of the bootstrap.

    Raises
    ------
    UnknownNameError
        If the target is unknown.
    QueryError
        If both names are equal, or the subset is unknown.
    NotFoundError
        If the two have no predicted row in common.
    """
    unit = property_named(target).unit
    if model == other:
        raise QueryError(f"{model!r} cannot be compared with itself; name two models")
    if subset not in ("holdout", "validation"):
        raise QueryError(f"subset is {subset!r}; choose from holdout, validation")
    parameters = {"target": target, "model": model, "other": other, "subset": subset}
    rows = session.execute(text(_ROWS), {**parameters, "splits": list(splits) if splits else None}).all()
    if not rows:
        raise NotFoundError(
            f"{model!r} and {other!r} have no {subset} prediction of {target} in common; train both on one split"
            " (`ecdreg leaderboard` lists them)"
        )
    truth = np.array([row.true_value for row in rows])
    predicted, others = np.array([row.predicted for row in rows]), np.array([row.other for row in rows])
    low, high = paired_bootstrap(truth, predicted, others, [row.material_key for row in rows], seed=seed)
    first, second = _rmse(truth - predicted), _rmse(truth - others)
    return Comparison(
        model=model,
        other=other,
        target=target,
        unit=unit,
        splits=tuple(dict.fromkeys(row.split for row in rows)),
        n_rows=len(rows),
        n_crystals=len({row.material_key for row in rows}),
        rmse=first,
        other_rmse=second,
        difference=first - second,
        low=low,
        high=high,
    )


def paired_bootstrap(
    truth: ArrayLike,
    predicted: ArrayLike,
    other: ArrayLike,
    groups: Sequence[str],
    *,
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[float, float]:
    """Compute the 95 % percentile interval of the difference of two RMSE on the same rows.

    Rows of one group are drawn together, because a crystal in the holdout of several splits is one crystal
    (B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap, 1993, sections 13.3 and 8.6).

    Parameters
    ----------
    truth, predicted, other
        (N,) each: true values and the predictions of the two models, in one unit.
    groups
        Name of the group of each row, (N,).
    seed, draws
        Seed and number of draws of the bootstrap.

    Returns
    -------
    tuple of float
        Ends of the interval of RMSE(predicted) - RMSE(other), in that unit.
    """
    y, a, b = (np.asarray(values, dtype=np.float64) for values in (truth, predicted, other))
    names = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    place = np.array([names[name] for name in groups])
    counts = np.bincount(place).astype(np.float64)
    squares = [np.bincount(place, weights=(y - values) ** 2) for values in (a, b)]
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    rows = drawn @ counts
    first, second = (np.sqrt(drawn @ square / rows) for square in squares)
    low, high = np.percentile(first - second, [2.5, 97.5])
    return float(low), float(high)


def _rmse(errors: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(errors**2)))
