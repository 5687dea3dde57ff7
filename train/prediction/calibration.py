"""Calibration of the intervals of a registered model, read from its stored out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.models import Experiment, ModelVersion, Prediction
from registry.properties import property_named
from train.features.labels import known_values
from train.prediction.uncertainty import Calibration

__all__ = ["Features", "read_calibration"]

Features: TypeAlias = Callable[[NDArray[np.int64]], Mapping[str, NDArray[np.floating[Any]]]]
"""Function from revisions (N,) to the input features of a model by modality, each (N, D)."""


def read_calibration(
    session: Session, experiment: Experiment, phase: str, features: Features
) -> tuple[NDArray[np.int64], Calibration] | None:
    """Read the calibration of the intervals of an experiment.

    Parameters
    ----------
    session
        Only read.
    experiment
        The experiment.
    phase
        Phase of its model versions.
    features
        Input features of the model; an empty mapping for a model without features.

    Returns
    -------
    tuple or None
        The revisions of the cross-validated rows (N,), and their calibration; None if there are no out-of-fold
        predictions, because the model was not trained in this registry.
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
