"""Calibration of prediction intervals: empirical coverage by confidence, from the models of the folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ecdreg.report.content import CalibrationPoint
from registry.errors import ArtifactError, ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from registry.model_store import ResolvedModel
    from registry.settings import Settings

__all__ = ["CONFIDENCES", "interval_calibration"]

CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def interval_calibration(engine: Engine, settings: Settings, model: ResolvedModel) -> Sequence[CalibrationPoint]:
    """Measure the coverage of intervals of :data:`CONFIDENCES`, on the cross-validated rows and on the holdout.

    Missing 90 % intervals of a model that was trained before intervals were stored are computed and stored.

    Parameters
    ----------
    engine
        Missing features are computed and stored.
    settings
        Location of the weights.
    model
        As ``registry.model_store.resolve_model`` returns it.

    Returns
    -------
    sequence of CalibrationPoint
        Without the confidences for which the split has too few rows. Empty for a model that was not cross-validated in
        this registry, or if its weights are not available.
    """
    from sqlalchemy.orm import Session

    from ecdreg.models.scores import coverages, last_phase
    from train.prediction.intervals import fill_intervals, split_intervals
    from train.prediction.predictor import Predictor
    from train.prediction.uncertainty import CONFIDENCE, coverage

    with Session(engine) as session:
        stored = coverages(session, last_phase(session, model.experiment))
        try:
            predictor = Predictor.load(session, settings, model)
        except (ArtifactError, ConfigurationError):
            return ()
    calibration = predictor.calibrate(engine)
    if calibration is None:
        return ()
    if not stored and calibration.allows(CONFIDENCE):
        fill_intervals(predictor, engine)
    confidences = [one for one in CONFIDENCES if calibration.allows(one)]
    points = []
    for part in split_intervals(predictor, engine, confidences):
        for confidence, intervals in part.by_confidence.items():
            found = coverage(intervals, part.truth)
            points.append(CalibrationPoint(part.subset, confidence, found.share, found.low, found.high))
    return points
