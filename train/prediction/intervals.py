"""Prediction intervals of registered models, and their storage.

Intervals are computed from the out-of-fold predictions in the table ``predictions``, the input features among the
embeddings, and the models of the folds in the artifact store. No other state is stored, so that every model that was
cross-validated in this registry has intervals. :mod:`train.prediction.uncertainty` computes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from registry.database import session_scope
from registry.errors import ModelError
from registry.jobs.progress import Progress
from registry.model_store import write_intervals
from registry.models import Experiment, Prediction
from train.features.labels import known_values
from train.prediction.calibration import Features, read_calibration
from train.prediction.predictor import Predictor
from train.prediction.uncertainty import CONFIDENCE, Intervals

__all__ = ["SubsetIntervals", "fill_intervals", "keep_intervals", "split_intervals"]


@dataclass(frozen=True)
class SubsetIntervals:
    """Intervals of one subset of a model's split."""

    subset: str
    """``validation``: around out-of-fold predictions, from the residuals of the other folds; ``holdout``: CV+."""
    revision_ids: NDArray[np.int64]
    """(N,)"""
    truth: NDArray[np.float64]
    """(N,), in the unit of the target"""
    by_confidence: Mapping[float, Intervals]
    """Intervals by nominal coverage."""


def keep_intervals(
    session: Session,
    experiment: Experiment,
    phase: str,
    features: Features,
    *,
    holdout: NDArray[np.int64],
    fold_predictions: Mapping[int, NDArray[np.float64]],
    predicted: NDArray[np.float64],
) -> int:
    """Store intervals of :data:`train.prediction.uncertainty.CONFIDENCE` with every prediction inside the split.

    Parameters
    ----------
    session
        Written to, not committed. Out-of-fold and holdout predictions must exist.
    experiment, phase, features
        As in :func:`train.prediction.calibration.read_calibration`.
    holdout
        (M,), revisions of the holdout.
    fold_predictions
        By fold, the predictions of its model for the holdout, (M,).
    predicted
        (M,), predictions of the refit for the holdout.

    Returns
    -------
    int
        Number of predictions with an interval; 0 for a split with too few rows.
    """
    read = read_calibration(session, experiment, phase, features)
    if read is None or not read[1].allows(CONFIDENCE):
        return 0
    ids, calibration = read
    parts = [(ids, calibration.out_of_fold())]
    if len(holdout):
        parts.append((holdout, calibration.intervals(fold_predictions, features=features(holdout), value=predicted)))
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
    predictor: Predictor,
    engine: Engine,
    confidences: Sequence[float] = (CONFIDENCE,),
    *,
    progress: Progress | None = None,
) -> list[SubsetIntervals]:
    """Compute the intervals of every row of a model's split: cross-validated rows first, then the holdout.

    Parameters
    ----------
    predictor
        Model with the models of its folds.
    engine
        Missing features are computed and stored through it.
    confidences
        Nominal coverages.
    progress
        Reports features that are computed.

    Raises
    ------
    ModelError
        If the model was not cross-validated in this registry.
    ConfigurationError
        If a confidence needs more rows.
    """
    model = predictor.model
    calibration = predictor.calibrate(engine, progress=progress)
    if calibration is None:
        raise ModelError(f"{model.name} was not cross-validated in this registry and has no intervals")
    with Session(engine) as session:
        holdout = session.execute(
            select(Prediction.revision_id, Prediction.value)
            .where(Prediction.model_version_id == model.model_version.id, Prediction.subset == "holdout")
            .order_by(Prediction.revision_id)
        ).all()
        ids = np.array([rid for rid, _ in holdout], dtype=np.int64)
        known = known_values(session, model.experiment.target, ids.tolist()) if len(ids) else {}
    cv = {confidence: calibration.out_of_fold(confidence=confidence) for confidence in confidences}
    subsets = [SubsetIntervals("validation", predictor.calibrated_rows, calibration.values, cv)]
    if len(ids):
        value = np.array([value for _, value in holdout])
        by_confidence = predictor.intervals_of(engine, ids, confidences, value=value, progress=progress)
        subsets.append(SubsetIntervals("holdout", ids, np.array([known[int(rid)] for rid in ids]), by_confidence))
    return subsets


def fill_intervals(predictor: Predictor, engine: Engine, *, progress: Progress | None = None) -> int:
    """Store the intervals of a model that was trained before the registry stored intervals.

    Parameters
    ----------
    predictor
        Model with the models of its folds.
    engine
        Written to, in one transaction.
    progress
        Reports features that are computed.

    Returns
    -------
    int
        Number of predictions with an interval.
    """
    subsets = split_intervals(predictor, engine, progress=progress)
    written = 0
    with session_scope(engine) as session:
        for part in subsets:
            intervals = part.by_confidence[CONFIDENCE]
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
