"""Scores of an experiment as ``ecdreg models`` and the report show them.

An experiment is scored by its last phase: out of fold by the model of each fold, and on the
holdout by the refit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from registry.models import Encoder, Epoch, Experiment, Metric, ModelAlias, ModelVersion, Property, Split

__all__ = [
    "PHASES",
    "Fold",
    "Score",
    "coverages",
    "fold_scores",
    "last_phase",
    "list_models",
    "mean_sd",
    "model_card",
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
    """How many known values lie in their 90 % intervals, by subset (validation, holdout).

    Parameters
    ----------
    session
        Only read.
    versions
        Of the experiment's last phase.

    Returns
    -------
    dict
        By subset: ``n``, ``covered``, ``share`` with the ends ``low`` and ``high`` of its Clopper-Pearson 95 %
        interval, ``median_width`` in the unit of the target, and how many crystals are ``out_of_domain``.
    """
    from train.prediction.uncertainty import CONFIDENCE, clopper_pearson

    found = {}
    for row in session.execute(text(_COVERED), {"versions": [v.id for v in versions]}).mappings():
        low, high = clopper_pearson(row["covered"], row["n"])
        share = row["covered"] / row["n"]
        found[row["subset"]] = {"level": CONFIDENCE, **row, "share": share, "low": low, "high": high}
    return found


# The last phase alone is scored; one row a model version, its metrics as columns.
_MODELS = """
WITH scored AS (
    SELECT m.experiment_id, m.fold, k.subset,
           max(k.value) FILTER (WHERE k.name = 'r2') AS r2,
           max(k.value) FILTER (WHERE k.name = 'rmse') AS rmse,
           max(k.n) AS n
    FROM model_versions m
    JOIN metrics k ON k.model_version_id = m.id
    WHERE array_position(ARRAY['fit', 'align', 'readout', 'finetune'], m.phase) = (
        SELECT max(array_position(ARRAY['fit', 'align', 'readout', 'finetune'], o.phase))
        FROM model_versions o WHERE o.experiment_id = m.experiment_id
    )
    GROUP BY m.id, m.experiment_id, m.fold, k.subset
)
SELECT e.name, e.target, e.version, e.kind, s.name AS split, e.seed, e.status, p.unit,
       cv.folds, cv.n AS n_cv, cv.r2 AS cv_r2, cv.r2_sd AS cv_r2_sd, cv.rmse AS cv_rmse, cv.rmse_sd AS cv_rmse_sd,
       h.n AS n_holdout, h.r2 AS holdout_r2, h.rmse AS holdout_rmse,
       ARRAY(SELECT alias FROM model_aliases a WHERE a.experiment_id = e.id ORDER BY alias) AS aliases,
       e.created_at AS created
FROM experiments e
JOIN splits s ON s.id = e.split_id
JOIN properties p ON p.name = e.target
LEFT JOIN LATERAL (
    SELECT count(*) AS folds, sum(n)::bigint AS n, avg(r2) AS r2, stddev_samp(r2) AS r2_sd,
           avg(rmse) AS rmse, stddev_samp(rmse) AS rmse_sd
    FROM scored WHERE experiment_id = e.id AND fold IS NOT NULL AND subset = 'validation'
) cv ON true
LEFT JOIN scored h ON h.experiment_id = e.id AND h.fold IS NULL AND h.subset = 'holdout'
WHERE CAST(:targets AS text[]) IS NULL OR e.target = ANY(:targets)
ORDER BY e.created_at DESC, e.id DESC
"""


def list_models(session: Session, *, targets: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Every experiment with its scores, newest first.

    Parameters
    ----------
    session
        Only read.
    targets
        Only models of these properties; None: of all.

    Returns
    -------
    list of dict
        Mean and standard deviation over the folds of R2 and of RMSE (in ``unit``), the same on the
        holdout without a deviation, None where a model has no such score.
    """
    rows = session.execute(text(_MODELS), {"targets": list(targets) if targets else None})
    return [dict(row) for row in rows.mappings()]


def model_card(session: Session, experiment: Experiment) -> dict[str, Any]:
    """Everything that the registry knows about one experiment, as JSON values.

    Parameters
    ----------
    session
        Only read.
    experiment
        The experiment to describe.

    Returns
    -------
    dict
        Its identity, config, versions (fold, phase, rows fitted to, epochs, scores by subset,
        weights), the summary of its last phase (``cv``: mean and standard deviation over the folds;
        ``holdout``; ``coverage`` of its intervals by subset), and its encoders. ``rmse`` and ``mae`` are in ``unit``.
    """
    epochs = dict(
        session.execute(
            select(Epoch.model_version_id, func.count())
            .join(ModelVersion, ModelVersion.id == Epoch.model_version_id)
            .where(ModelVersion.experiment_id == experiment.id)
            .group_by(Epoch.model_version_id)
        ).all()
    )
    every = session.scalars(select(ModelVersion).where(ModelVersion.experiment_id == experiment.id)).all()
    every = sorted(every, key=lambda v: (PHASES.index(v.phase), v.fold is None, v.fold or 0))
    last = last_phase(session, experiment)
    folds = fold_scores(session, last)
    refit = next((v for v in last if v.fold is None), None)
    cv = {name: mean_sd(getattr(f.score, name) for f in folds) for name in ("r2", "rmse", "mae")}
    holdout = None if refit is None else scores(session, refit).get("holdout")
    return {
        "model": experiment.name,
        "target": experiment.target,
        "unit": session.scalar(select(Property.unit).where(Property.name == experiment.target)),
        "version": experiment.version,
        "kind": experiment.kind,
        "status": experiment.status,
        "aliases": list(
            session.scalars(
                select(ModelAlias.alias).where(ModelAlias.experiment_id == experiment.id).order_by(ModelAlias.alias)
            )
        ),
        "split": session.scalar(select(Split.name).where(Split.id == experiment.split_id)),
        "seed": experiment.seed,
        "code_version": experiment.code_version,
        "created": experiment.created_at,
        "finished": experiment.finished_at,
        "config_sha256": experiment.config_sha256,
        "config": experiment.config,
        "cv": {"folds": len(folds), "n": sum(f.score.n for f in folds)}
        | {name: mean for name, (mean, _) in cv.items()}
        | {f"{name}_sd": sd for name, (_, sd) in cv.items()},
        "holdout": None if holdout is None else asdict(holdout),
        "coverage": coverages(session, last),
        "versions": [
            {
                "fold": v.fold,
                "phase": v.phase,
                "n_train": v.n_train,
                "epochs": epochs.get(v.id, 0),
                "best_epoch": v.best_epoch,
                "scores": {subset: asdict(score) for subset, score in scores(session, v).items()},
                "status": v.status,
                "artifact_uri": v.artifact_uri,
                "artifact_sha256": v.artifact_sha256,
            }
            for v in every
        ],
        "encoders": list(
            session.scalars(
                select(Encoder.name)
                .join(ModelVersion, Encoder.model_version_id == ModelVersion.id)
                .where(ModelVersion.experiment_id == experiment.id)
                .order_by(Encoder.name)
            )
        ),
    }
