"""Results of model versions: learning curves, metrics, predictions and their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from registry.errors import ModelError
from registry.models import Epoch, Experiment, Metric, ModelVersion, Prediction

__all__ = ["METRICS", "EpochRow", "write_epochs", "write_intervals", "write_metrics", "write_predictions"]

METRICS = ("r2", "rmse", "mae")
"""Names of the metrics: coefficient of determination, root mean square error, mean absolute error."""

_CHUNK = 10_000


@dataclass(frozen=True)
class EpochRow:
    """One point of a learning curve."""

    epoch: int
    """Number of the epoch, from 1."""
    train_loss: float
    """Mean squared error of the standardised target."""
    stop_loss: float | None
    """Mean squared error of the rows for early stopping; None in the refit."""
    seconds: float


def write_epochs(session: Session, model_version: ModelVersion | int, epochs: Iterable[EpochRow]) -> None:
    """Write the learning curve of a model version.

    Raises
    ------
    ModelError
        If a loss is not finite, because the training diverged.
    """
    version_id = _id(model_version)
    rows = [{"model_version_id": version_id, **vars(epoch)} for epoch in epochs]
    for row in rows:
        if not np.isfinite([row["train_loss"], row["stop_loss"] or 0.0]).all():
            raise ModelError(f"the loss of epoch {row['epoch']} is not finite; lower the learning rate")
    if rows:
        session.execute(insert(Epoch), rows)


def write_metrics(
    session: Session, model_version: ModelVersion | int, *, subset: str, values: Mapping[str, float], n: int
) -> None:
    """Write the metrics of a model version on one subset.

    Parameters
    ----------
    subset
        train, validation or holdout.
    values
        Metrics by name: r2 [1], rmse and mae [unit of the target].
    n
        Number of rows.

    Raises
    ------
    ModelError
        If a metric has another name, or is not finite.
    """
    for name, value in values.items():
        if name not in METRICS:
            raise ModelError(f"no metric {name!r}; there are {', '.join(METRICS)}")
        if not np.isfinite(value):
            raise ModelError(
                f"{name} of the subset {subset} is {value} over {n} rows; it needs rows with different values"
            )
    rows = [
        {"model_version_id": _id(model_version), "subset": subset, "name": name, "value": float(value), "n": n}
        for name, value in values.items()
    ]
    if rows:
        session.execute(insert(Metric), rows)


@dataclass(frozen=True)
class IntervalColumns:
    """Intervals of N predictions; None where there are none."""

    lower: ArrayLike | None = None
    """(N,), lower end of the 90 % interval, unit of the target."""
    upper: ArrayLike | None = None
    """(N,), upper end."""
    out_of_domain: Sequence[bool] | NDArray[np.bool_] | None = None
    """(N,), whether a crystal is outside the domain of the training rows; None if that is not known."""


def write_predictions(
    session: Session,
    model_version: ModelVersion | int,
    revision_ids: Sequence[int] | NDArray[np.int64],
    values: ArrayLike,
    *,
    subset: str,
    spread: ArrayLike | None = None,
    intervals: IntervalColumns | None = None,
) -> None:
    """Write predictions of a model version for N crystals.

    Predictions of crystals in the split (train, validation, holdout) are written once. Those of other crystals (subset
    ``none``) may be replaced.

    Parameters
    ----------
    revision_ids
        (N,)
    values
        (N,), unit of the target.
    subset
        train, validation, holdout or none.
    spread
        (N,), standard deviation over the models of the folds, unit of the target.
    intervals
        Intervals of the predictions.

    Raises
    ------
    ModelError
        If a value is not finite, or the prediction of a crystal in the split exists.
    """
    intervals = intervals or IntervalColumns()
    columns = {"value": values, "spread": spread, "lower": intervals.lower, "upper": intervals.upper}
    out_of_domain = intervals.out_of_domain
    given = {name: np.asarray(v, dtype=np.float64) for name, v in columns.items() if v is not None}
    for name, array in given.items():
        if array.shape != (len(revision_ids),) or not np.isfinite(array).all():
            raise ModelError(
                f"{name}s of {len(revision_ids)} predictions have shape {array.shape} or are not finite; the model"
                " cannot be used on these crystals"
            )
    version_id = _id(model_version)
    lists = {name: array.tolist() for name, array in given.items()}
    rows = [
        {"model_version_id": version_id, "revision_id": int(revision_id), "subset": subset}
        | {name: lists[name][i] if name in lists else None for name in columns}
        | {"out_of_domain": None if out_of_domain is None else bool(out_of_domain[i])}
        for i, revision_id in enumerate(revision_ids)
    ]
    given_row = postgresql.insert(Prediction)
    upsert = given_row.on_conflict_do_update(
        index_elements=[Prediction.model_version_id, Prediction.revision_id],
        set_={name: given_row.excluded[name] for name in (*columns, "out_of_domain")} | {"created_at": func.now()},
        where=(Prediction.subset == "none") & (given_row.excluded.subset == "none"),
    ).returning(Prediction.revision_id)
    written: set[int] = set()
    for start in range(0, len(rows), _CHUNK):
        written.update(session.scalars(upsert, rows[start : start + _CHUNK]))
    if refused := [row["revision_id"] for row in rows if row["revision_id"] not in written]:
        raise ModelError(
            f"{len(refused)} crystals (first: revision {refused[0]}) of the split already have a prediction of model"
            f" version {version_id}, which is final; train a new version"
        )


def write_intervals(
    session: Session,
    experiment: Experiment | int,
    revision_ids: Sequence[int] | NDArray[np.int64],
    *,
    phase: str,
    lower: ArrayLike,
    upper: ArrayLike,
    out_of_domain: Sequence[bool] | NDArray[np.bool_] | None,
) -> int:
    """Add intervals to predictions in the split (validation and holdout).

    The predicted values stay. Existing intervals are replaced, because they follow from the rows of the registry.

    Parameters
    ----------
    experiment
        The experiment, or its id.
    revision_ids
        (N,)
    phase
        Phase of the model versions.
    lower, upper
        (N,), 90 % interval, unit of the target.
    out_of_domain
        (N,), or None for a model without a domain.

    Returns
    -------
    int
        Number of predictions with new intervals.
    """
    low, high = np.asarray(lower, dtype=np.float64).tolist(), np.asarray(upper, dtype=np.float64).tolist()
    versions = select(ModelVersion.id).where(ModelVersion.experiment_id == _id(experiment), ModelVersion.phase == phase)
    statement = (
        update(Prediction)
        .where(
            Prediction.model_version_id.in_(versions),
            Prediction.revision_id == bindparam("rid"),
            Prediction.subset.in_(("validation", "holdout")),
        )
        .values(lower=bindparam("low"), upper=bindparam("high"), out_of_domain=bindparam("out"))
    )
    rows = [
        {
            "rid": int(rid),
            "low": low[i],
            "high": high[i],
            "out": None if out_of_domain is None else bool(out_of_domain[i]),
        }
        for i, rid in enumerate(revision_ids)
    ]
    return sum(session.connection().execute(statement, row).rowcount for row in rows)


def _id(row: Experiment | ModelVersion | int) -> int:
    return row if isinstance(row, int) else row.id
