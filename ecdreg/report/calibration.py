"""How the intervals of a model do at several levels: what a report draws, made with the models of the folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ecdreg.report.content import CalibrationPoint
from registry.errors import ArtifactError, ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from registry.model_store import ResolvedModel
    from registry.settings import Settings

__all__ = ["LEVELS", "calibrate"]

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def calibrate(engine: Engine, settings: Settings, model: ResolvedModel) -> Sequence[CalibrationPoint]:
    """Coverage of the intervals of :data:`LEVELS`, on the cross-validated rows and on the holdout.

    Parameters
    ----------
    engine
        Features that are missing are computed, and kept.
    settings
        Where weights are kept.
    model
        As ``registry.model_store.resolve_model`` gives it.

    Returns
    -------
    sequence of CalibrationPoint
        None for levels that the split has too few rows for; empty for a model that was not cross-validated here, or
        whose weights are gone. Intervals of a model that was trained before there were any are kept from here on.
    """
    from sqlalchemy.orm import Session

    from ecdreg.scores import coverages, last_phase
    from train.prediction.intervals import fill_intervals, split_intervals
    from train.prediction.predictor import Predictor
    from train.prediction.uncertainty import CONFIDENCE, coverage

    with Session(engine) as session:
        kept = coverages(session, last_phase(session, model.experiment))
        try:
            predictor = Predictor.load(session, settings, model)
        except (ArtifactError, ConfigurationError):
            return ()
    calibration = predictor.calibrate(engine)
    if calibration is None:
        return ()
    if not kept and calibration.allows(CONFIDENCE):
        fill_intervals(predictor, engine)
    confidences = [one for one in LEVELS if calibration.allows(one)]
    points = []
    for part in split_intervals(predictor, engine, confidences):
        for confidence, intervals in part.by_confidence.items():
            found = coverage(intervals, part.truth)
            points.append(CalibrationPoint(part.subset, confidence, found.share, found.low, found.high))
    return points
