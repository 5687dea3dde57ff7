"""Scores of an experiment in its last phase, for ``ecdreg models`` and the report.

An experiment is scored by its last phase: out of fold by the model of each fold, and on the
holdout by the refit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from registry.models import Experiment, Metric, ModelVersion

__all__ = [
    "PHASES",
    "Fold",
    "Score",
    "coverages",
    "fold_scores",
    "is_reference_model",
    "last_phase",
    "mean_sd",
    "scores",
]

PHASES = ("fit", "align", "readout", "finetune")
"""In the order in which they are run; the last one that an experiment has is its result."""


@dataclass(frozen=True)
class Score:
    """Metrics on one set of rows; ``rmse`` and ``mae`` in the unit of the target."""

    n: int
    r2: float | None
    rmse: float | None
    mae: float | None


@dataclass(frozen=True)
class Fold:
    """One fold's model, scored on the fold's own rows."""

    fold: int
    n_train: int
    best_epoch: int | None
    score: Score


def is_reference_model(experiment: Experiment) -> bool:
    """Whether a model was trained elsewhere; the configuration of such a model names its training data."""
    return "trained_on" in experiment.config


def last_phase(session: Session, experiment: Experiment) -> list[ModelVersion]:
    """The versions of the experiment's last phase, folds in order, the refit last."""
    versions = session.scalars(
        select(ModelVersion).where(ModelVersion.experiment_id == experiment.id).order_by(ModelVersion.fold)
    ).all()
    if not versions:
        return []
    last = max((v.phase for v in versions), key=PHASES.index)
    return [v for v in versions if v.phase == last]


def scores(session: Session, version: ModelVersion) -> dict[str, Score]:
    """Scores of one version by subset."""
    found: dict[str, dict[str, Metric]] = {}
    for metric in session.scalars(select(Metric).where(Metric.model_version_id == version.id)):
        found.setdefault(metric.subset, {})[metric.name] = metric

    def value(metrics: dict[str, Metric], name: str) -> float | None:
        return metrics[name].value if name in metrics else None

    return {
        subset: Score(n=next(iter(m.values())).n, r2=value(m, "r2"), rmse=value(m, "rmse"), mae=value(m, "mae"))
        for subset, m in found.items()
    }


def fold_scores(session: Session, versions: Sequence[ModelVersion]) -> list[Fold]:
    """Scores of the fold models on their own folds, in the order of the folds."""
    folds = []
    for version in versions:
        score = scores(session, version).get("validation")
        if version.fold is not None and score is not None:
            folds.append(Fold(fold=version.fold, n_train=version.n_train, best_epoch=version.best_epoch, score=score))
    return folds


def mean_sd(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation (n - 1) of the values that are known; None where there are too few."""
    known = [v for v in values if v is not None]
    if not known:
        return None, None
    mean = sum(known) / len(known)
    if len(known) == 1:
        return mean, None
    return mean, (sum((v - mean) ** 2 for v in known) / (len(known) - 1)) ** 0.5


_COVERED = """
SELECT v.subset, count(*) AS n, count(*) FILTER (WHERE v.covered) AS covered,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY v.upper - v.lower) AS median_width,
       count(*) FILTER (WHERE v.out_of_domain) AS out_of_domain
FROM v_predictions v
WHERE v.model_version_id = ANY(:versions) AND v.covered IS NOT NULL
  AND v.subset = CASE WHEN v.fold IS NULL THEN 'holdout' ELSE 'validation' END
GROUP BY v.subset
"""


def coverages(session: Session, versions: Sequence[ModelVersion]) -> dict[str, dict[str, Any]]:
    """Coverage of the stored 90 % intervals, by subset (validation, holdout).

    Parameters
    ----------
    session
        Only read.
    versions
        Of the experiment's last phase.

    Returns
    -------
    dict
        By subset: ``confidence``, ``n``, ``covered``, ``share`` with the ends ``low`` and ``high`` of its
        Clopper-Pearson 95 % interval, ``median_width`` in the unit of the target, and the number of crystals that are
        ``out_of_domain``.
    """
    from train.prediction.uncertainty import CONFIDENCE, clopper_pearson

    found = {}
    for row in session.execute(text(_COVERED), {"versions": [v.id for v in versions]}).mappings():
        low, high = clopper_pearson(row["covered"], row["n"])
        share = row["covered"] / row["n"]
        found[row["subset"]] = {"confidence": CONFIDENCE, **row, "share": share, "low": low, "high": high}
    return found
