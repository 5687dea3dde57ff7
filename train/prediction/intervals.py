"""Intervals of the models of a registry: what they are made of is read from its rows, and they are kept beside them.

The out-of-fold predictions of the cross-validated rows lie in the table ``predictions``, the models' inputs among the
embeddings, the models of the folds in the artifact store: nothing else is needed, so that nothing else is stored, and
every model that ever was cross-validated here has intervals. :mod:`train.prediction.uncertainty` has the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from registry.database import session_scope
from registry.errors import ModelError
from registry.jobs.progress import Progress
from registry.model_store import write_intervals
from registry.models import Experiment, ModelVersion, Prediction
from registry.properties import property_named
from train.experiments.rows import known_values
from train.prediction.uncertainty import LEVEL, Calibration, Intervals

if TYPE_CHECKING:
    from train.prediction.predictor import Predictor

__all__ = ["Features", "SubsetIntervals", "fill_intervals", "keep_intervals", "read_calibration", "split_intervals"]

Features: TypeAlias = Callable[[NDArray[np.int64]], Mapping[str, NDArray[np.floating[Any]]]]
"""Features of revisions (N,) by modality, each (N, D): what a model is shown."""


@dataclass(frozen=True)
class SubsetIntervals:
    """The intervals of one part of a model's split."""

    subset: str
    """validation: around the out-of-fold predictions, from the residuals of the other folds; holdout: CV+"""
    revision_ids: NDArray[np.int64]
    """(N,)"""
    truth: NDArray[np.float64]
    """(N,), in the unit of the target"""
    by_level: Mapping[float, Intervals]


def read_calibration(
    session: Session, experiment: Experiment, phase: str, features: Features
) -> tuple[NDArray[np.int64], Calibration] | None:
    """What the intervals of an experiment are made of.

    Parameters
    ----------
    session
        Only read.
    experiment
        The experiment.
    phase
        Phase of its model versions.
    features
        What the model is shown of revisions; an empty mapping where it looks at nothing.

    Returns
    -------
    tuple or None
        The revisions of the cross-validated rows (N,), and their calibration; None where there are no out-of-fold
        predictions, because nothing was fitted here.
    """
    found = session.execute(
        select(Prediction.revision_id, Prediction.value, ModelVersion.fold)
        .join(ModelVersion, ModelVersion.id == Prediction.model_version_id)
        .where(
            ModelVersion.experiment_id == experiment.id,
            ModelVersion.phase == phase,
            ModelVersion.fold.is_not(None),
            Prediction.subset == "validation",
        )
        .order_by(Prediction.revision_id)
    ).all()
    if len({fold for _, _, fold in found}) < 2:
        return None
    ids = np.array([rid for rid, _, _ in found], dtype=np.int64)
    known = known_values(session, experiment.target, ids.tolist())
    calibration = Calibration(
        [known[int(rid)] for rid in ids],
        [value for _, value, _ in found],
        [int(fold or 0) for _, _, fold in found],
        features=features(ids),
        lower_bound=property_named(experiment.target).lower_bound,
    )
    return ids, calibration


def keep_intervals(
    session: Session,
    experiment: Experiment,
    phase: str,
    features: Features,
    *,
    holdout: NDArray[np.int64],
    said: Mapping[int, NDArray[np.float64]],
    predicted: NDArray[np.float64],
) -> int:
    """Put the intervals of :data:`train.prediction.uncertainty.LEVEL` beside every prediction inside the split.

    Parameters
    ----------
    session
        Written to, not committed. Out-of-fold and holdout predictions must be there.
    experiment, phase, features
        As in :func:`read_calibration`.
    holdout
        (M,), revisions of the holdout.
    said
        By fold, what its model says of the holdout, (M,).
    predicted
        (M,), what the refit says of it.

    Returns
    -------
    int
        Predictions that have an interval now; 0 for a split with too few rows for the level.
    """
    read = read_calibration(session, experiment, phase, features)
    if read is None or not read[1].allows(LEVEL):
        return 0
    ids, calibration = read
    parts = [(ids, calibration.out_of_fold())]
    if len(holdout):
        parts.append((holdout, calibration.intervals(said, features=features(holdout), value=predicted)))
    return sum(
        write_intervals(
            session,
            experiment,
            revisions,
            phase=phase,
            lower=intervals.lower,
            upper=intervals.upper,
            out_of_domain=intervals.out_of_domain,
        )
        for revisions, intervals in parts
    )


def split_intervals(
    predictor: Predictor, engine: Engine, levels: Sequence[float] = (LEVEL,), *, progress: Progress | None = None
) -> list[SubsetIntervals]:
    """The intervals of every row of a model's split: cross-validated ones first, then the holdout.

    Parameters
    ----------
    predictor
        With the models of the folds.
    engine
        Features that are missing are computed, and kept.
    levels
        What the intervals promise.
    progress
        Told of features that are computed.

    Raises
    ------
    ModelError
        If the model was not cross-validated here.
    ConfigurationError
        If a level needs more rows.
    """
    model = predictor.model
    calibration = predictor.calibrate(engine, progress=progress)
    if calibration is None:
        raise ModelError(f"{model.name} was not cross-validated here and has no intervals")
    with Session(engine) as session:
        holdout = session.execute(
            select(Prediction.revision_id, Prediction.value)
            .where(Prediction.model_version_id == model.model_version.id, Prediction.subset == "holdout")
            .order_by(Prediction.revision_id)
        ).all()
        ids = np.array([rid for rid, _ in holdout], dtype=np.int64)
        known = known_values(session, model.experiment.target, ids.tolist()) if len(ids) else {}
    cv = {level: calibration.out_of_fold(level=level) for level in levels}
    subsets = [SubsetIntervals("validation", predictor.calibrated_rows, calibration.values, cv)]
    if len(ids):
        value = np.array([value for _, value in holdout])
        by_level = predictor.intervals_of(engine, ids, levels, value=value, progress=progress)
        subsets.append(SubsetIntervals("holdout", ids, np.array([known[int(rid)] for rid in ids]), by_level))
    return subsets


def fill_intervals(predictor: Predictor, engine: Engine, *, progress: Progress | None = None) -> int:
    """Keep the intervals of a model that was trained before there were any.

    Parameters
    ----------
    predictor
        With the models of the folds.
    engine
        Written to, in one transaction.
    progress
        Told of features that are computed.

    Returns
    -------
    int
        Predictions that have an interval now.
    """
    subsets = split_intervals(predictor, engine, progress=progress)
    written = 0
    with session_scope(engine) as session:
        for part in subsets:
            intervals = part.by_level[LEVEL]
            written += write_intervals(
                session,
                predictor.model.experiment.id,
                part.revision_ids,
                phase=predictor.model.model_version.phase,
                lower=intervals.lower,
                upper=intervals.upper,
                out_of_domain=intervals.out_of_domain,
            )
    return written
