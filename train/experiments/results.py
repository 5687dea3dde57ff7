"""Result of an experiment, read from the registry."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.models import Experiment, Metric, ModelVersion
from train.config.stored import config_of

__all__ = ["ExperimentResult", "read_result"]


@dataclass(frozen=True)
class ExperimentResult:
    """Scores of an experiment."""

    experiment_id: int
    name: str
    target: str
    version: int
    outcome: str
    """``trained``, ``resumed``, or ``unchanged`` where the very same one had been finished before."""
    cv: dict[str, float]
    """Mean over the folds of r2 [1], rmse and mae [unit of the target]."""
    holdout: dict[str, float]
    """Scores of the refit."""
    n_cv: int
    n_holdout: int
    seconds: float
    """Wall time of this call, prerequisites included [s]."""
    prerequisites: tuple[ExperimentResult, ...] = field(default=())
    """Baselines and towers that were needed, in the order in which they were looked at."""

    @property
    def model(self) -> str:
        """``name:target@version``, as ``ecdreg predict`` takes it."""
        return f"{self.name}:{self.target}@{self.version}"


def read_result(
    session: Session, experiment: Experiment, outcome: str, started: float, needed: Sequence[ExperimentResult]
) -> ExperimentResult:
    """The result of a finished experiment, from its stored records.

    Parameters
    ----------
    session
        Only read.
    experiment
        The experiment.
    outcome
        What this call did: ``trained``, ``resumed`` or ``unchanged``.
    started
        ``time.perf_counter()`` when the call began [s].
    needed
        Results of its prerequisites.
    """
    last = config_of(experiment).phases[-1]
    found = session.execute(
        select(ModelVersion.fold, Metric.subset, Metric.name, Metric.value, Metric.n)
        .join(Metric, Metric.model_version_id == ModelVersion.id)
        .where(ModelVersion.experiment_id == experiment.id, ModelVersion.phase == last)
    ).all()
    folds: dict[str, list[float]] = {}
    for row in found:
        if row.subset == "validation":
            folds.setdefault(row.name, []).append(row.value)
    return ExperimentResult(
        experiment_id=experiment.id,
        name=experiment.name,
        target=experiment.target,
        version=experiment.version,
        outcome=outcome,
        cv={name: statistics.fmean(values) for name, values in folds.items()},
        holdout={row.name: row.value for row in found if row.subset == "holdout"},
        n_cv=sum(row.n for row in found if row.subset == "validation" and row.name == "rmse"),
        n_holdout=max((row.n for row in found if row.subset == "holdout"), default=0),
        seconds=time.perf_counter() - started,
        prerequisites=tuple(needed),
    )
