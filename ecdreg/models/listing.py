"""Models of the registry: list, card, comparison, aliases and coverage of intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from ecdreg.models.scores import PHASES, Score, coverages, fold_scores, last_phase, mean_sd, scores
from ecdreg.results import Results
from registry.database import session_scope
from registry.errors import ConfigurationError, NotFoundError
from registry.jobs.progress import Progress, Silent
from registry.model_store import METRICS, resolve_model
from registry.model_store import set_alias as move_alias
from registry.models import Encoder, Epoch, Experiment, ModelAlias, ModelVersion, Property, Split
from registry.properties import TARGETS, property_named

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection
    from train.analysis.comparison import Comparison

__all__ = [
    "Aliased",
    "CoverageRow",
    "CrossValidation",
    "ModelCard",
    "ModelSummary",
    "VersionCard",
    "compare_models",
    "list_models",
    "model_coverage",
    "set_alias",
    "show_model",
]


@dataclass(frozen=True)
class ModelSummary:
    """A version of a model with its scores; means and standard deviations are over the folds, None where missing."""

    name: str
    target: str
    version: int
    kind: str
    split: str
    seed: int
    status: str
    unit: str
    """Unit of every ``rmse``."""
    folds: int | None
    n_cv: int | None
    cv_r2: float | None
    cv_r2_sd: float | None
    cv_rmse: float | None
    cv_rmse_sd: float | None
    n_holdout: int | None
    holdout_r2: float | None
    holdout_rmse: float | None
    aliases: list[str]
    created: datetime


@dataclass(frozen=True)
class CrossValidation:
    """Scores of the folds of a model: mean and standard deviation over the folds; None where there are too few."""

    folds: int
    n: int
    """Crystals that the folds score, all together."""
    r2: float | None
    rmse: float | None
    mae: float | None
    r2_sd: float | None
    rmse_sd: float | None
    mae_sd: float | None


@dataclass(frozen=True)
class VersionCard:
    """A model version: one fold, or the refit on all folds, in one phase."""

    fold: int | None
    """None for the refit."""
    phase: str
    n_train: int
    epochs: int
    """Epochs that were recorded."""
    best_epoch: int | None
    scores: dict[str, Score]
    """Scores by subset."""
    status: str
    artifact_uri: str | None
    artifact_sha256: str | None


@dataclass(frozen=True)
class ModelCard:
    """A model with its configuration, versions and scores; ``rmse`` and ``mae`` are in ``unit``."""

    model: str
    target: str
    unit: str
    version: int
    kind: str
    status: str
    aliases: list[str]
    split: str
    seed: int
    code_version: str
    created: datetime
    finished: datetime | None
    config_sha256: str
    config: dict[str, Any]
    cv: CrossValidation
    """Scores of the last phase."""
    holdout: Score | None
    """Scores of the refit in its last phase."""
    coverage: dict[str, dict[str, Any]]
    """Coverage of the stored 90 % intervals by subset; see :func:`ecdreg.models.scores.coverages`."""
    versions: list[VersionCard]
    encoders: list[str]


@dataclass(frozen=True)
class Aliased:
    """A version of a model that has an alias."""

    model: str
    target: str
    version: int
    alias: str


@dataclass(frozen=True)
class CoverageRow:
    """Coverage of the intervals of a model on one subset."""

    model: str
    confidence: float
    """Share of true values that the intervals are made for."""
    subset: str
    """``validation``, for out-of-fold predictions, or ``holdout``."""
    n: int
    covered: int
    share: float
    """Empirical coverage."""
    low: float
    """Lower end of the Clopper-Pearson 95 % interval of the share."""
    high: float
    """Upper end of it."""
    median_width: float
    """In ``unit``."""
    unit: str
    out_of_domain: int | None
    """Crystals outside the domain of the model; None where no distance is known."""


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


def list_models(registry: RegistryConnection, *, targets: Sequence[str] | None = None) -> Results[ModelSummary]:
    """List every version of every model with its scores, newest first.

    Parameters
    ----------
    registry
        An open registry.
    targets
        Only models of these properties; None: of all.

    Raises
    ------
    UnknownNameError
        If there is no such property.
    """
    for name in targets or ():
        property_named(name)
    with session_scope(registry.engine) as session:
        found = session.execute(text(_MODELS), {"targets": list(targets) if targets else None})
        rows = tuple(ModelSummary(**row) for row in found.mappings())
    return Results(rows, () if rows else ("no models yet; `ecdreg train stacked` makes some",))


def show_model(registry: RegistryConnection, model: str) -> Results[ModelCard]:
    """Read everything that the registry has of a model, one card for each target.

    Parameters
    ----------
    registry
        An open registry.
    model
        ``name[:target][@alias or @version]``.

    Raises
    ------
    NotFoundError, UnknownNameError
        As :func:`registry.model_store.resolve_model`.
    """
    with session_scope(registry.engine) as session:
        return Results(tuple(_card(session, found.experiment) for found in resolve_model(session, model)))


def compare_models(
    registry: RegistryConnection,
    model: str,
    others: Sequence[str],
    *,
    targets: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    cv: bool = False,
) -> Results[Comparison]:
    """Compare a model with others on the rows that both predicted; see :mod:`train.analysis.comparison`.

    Parameters
    ----------
    registry
        An open registry.
    model
        Name of a model.
    others
        Names of the others.
    targets
        Properties; None: of the three of the paper, those that both models were trained for.
    splits
        Only these splits; None: all that both models were trained on.
    cv
        Compare the out-of-fold predictions instead of those of the holdouts.

    Raises
    ------
    UnknownNameError, QueryError
        As :func:`train.analysis.comparison.compare_models`.
    NotFoundError
        If two models have no predicted row in common, for a target that was named or for any.
    """
    from train.analysis import comparison

    subset = "validation" if cv else "holdout"
    found: list[Comparison] = []
    with session_scope(registry.engine) as session:
        for target, other in product(targets or TARGETS, others):
            try:
                found.append(comparison.compare_models(session, model, other, target, splits=splits, subset=subset))
            except NotFoundError:
                if targets or (target == TARGETS[-1] and not any(made.other == other for made in found)):
                    raise
    return Results(tuple(found))


def set_alias(registry: RegistryConnection, model: str, alias: str) -> Results[Aliased]:
    """Give versions of a model an alias; another version of the same split loses it.

    Parameters
    ----------
    registry
        An open registry.
    model
        ``name[:target][@alias or @version]``.
    alias
        For instance ``production``.

    Raises
    ------
    ConfigurationError, NotFoundError
        If the alias cannot be used, or there is no such model.
    """
    aliased = []
    with session_scope(registry.engine) as session:
        for found in resolve_model(session, model):
            move_alias(session, found, alias)
            run = found.experiment
            aliased.append(Aliased(run.name, run.target, run.version, alias))
    return Results(tuple(aliased))


def model_coverage(
    registry: RegistryConnection,
    model: str,
    *,
    confidences: Sequence[float] | None = None,
    progress: Progress | None = None,
) -> Results[CoverageRow]:
    """Measure the share of true values inside the prediction intervals of a model.

    Parameters
    ----------
    registry
        An open registry; written to where stored intervals are missing.
    model
        ``name[:target][@alias or @version]``.
    confidences
        Confidences of the intervals; None: the stored ones of 0.9, which are made for a model without them.
    progress
        Receives features that are computed.

    Raises
    ------
    ConfigurationError
        If a confidence is not between 0 and 1.
    NotFoundError, ArtifactError, ModelError
        As :meth:`train.prediction.predictor.Predictor.load`.
    """
    from train.prediction.intervals import fill_intervals, split_intervals
    from train.prediction.predictor import Predictor
    from train.prediction.uncertainty import CONFIDENCE, coverage

    progress = progress or Silent()
    chosen = tuple(confidences or (CONFIDENCE,))
    if wrong := [one for one in chosen if not 0 < one < 1]:
        raise ConfigurationError(f"the confidence is {wrong[0]:g}; give a number between 0 and 1, for instance 0.9")
    with Session(registry.engine) as session:
        models = resolve_model(session, model)
        session.expunge_all()
    rows = []
    for found in models:
        with Session(registry.engine) as session:
            predictor = Predictor.load(session, registry.settings, found)
        parts = split_intervals(predictor, registry.engine, chosen, progress=progress)
        if confidences is None:
            fill_intervals(predictor, registry.engine, progress=progress)
        for part in parts:
            for confidence, intervals in part.by_confidence.items():
                counted = coverage(intervals, part.truth)
                flags = intervals.out_of_domain
                rows.append(
                    CoverageRow(
                        model=found.name,
                        confidence=confidence,
                        subset=part.subset,
                        n=counted.n,
                        covered=counted.covered,
                        share=counted.share,
                        low=counted.low,
                        high=counted.high,
                        median_width=counted.median_width,
                        unit=property_named(found.experiment.target).unit,
                        out_of_domain=None if flags is None else int(flags.sum()),
                    )
                )
    return Results(tuple(rows))


def _card(session: Session, experiment: Experiment) -> ModelCard:
    last = last_phase(session, experiment)
    folds = fold_scores(session, last)
    refit = next((version for version in last if version.fold is None), None)
    cv = {name: mean_sd(getattr(fold.score, name) for fold in folds) for name in METRICS}
    return ModelCard(
        model=experiment.name,
        target=experiment.target,
        unit=session.scalars(select(Property.unit).where(Property.name == experiment.target)).one(),
        version=experiment.version,
        kind=experiment.kind,
        status=experiment.status,
        aliases=list(
            session.scalars(
                select(ModelAlias.alias).where(ModelAlias.experiment_id == experiment.id).order_by(ModelAlias.alias)
            )
        ),
        split=session.scalars(select(Split.name).where(Split.id == experiment.split_id)).one(),
        seed=experiment.seed,
        code_version=experiment.code_version,
        created=experiment.created_at,
        finished=experiment.finished_at,
        config_sha256=experiment.config_sha256,
        config=experiment.config,
        cv=CrossValidation(
            folds=len(folds),
            n=sum(fold.score.n for fold in folds),
            **{name: mean for name, (mean, _) in cv.items()},
            **{f"{name}_sd": sd for name, (_, sd) in cv.items()},
        ),
        holdout=None if refit is None else scores(session, refit).get("holdout"),
        coverage=coverages(session, last),
        versions=_versions(session, experiment),
        encoders=list(
            session.scalars(
                select(Encoder.name)
                .join(ModelVersion, Encoder.model_version_id == ModelVersion.id)
                .where(ModelVersion.experiment_id == experiment.id)
                .order_by(Encoder.name)
            )
        ),
    )


def _versions(session: Session, experiment: Experiment) -> list[VersionCard]:
    """All versions, phases and folds in order, the refit last in each phase."""
    epochs = dict(
        session.execute(
            select(Epoch.model_version_id, func.count())
            .join(ModelVersion, ModelVersion.id == Epoch.model_version_id)
            .where(ModelVersion.experiment_id == experiment.id)
            .group_by(Epoch.model_version_id)
        ).all()
    )
    versions = session.scalars(select(ModelVersion).where(ModelVersion.experiment_id == experiment.id)).all()
    return [
        VersionCard(
            fold=version.fold,
            phase=version.phase,
            n_train=version.n_train,
            epochs=epochs.get(version.id, 0),
            best_epoch=version.best_epoch,
            scores=scores(session, version),
            status=version.status,
            artifact_uri=version.artifact_uri,
            artifact_sha256=version.artifact_sha256,
        )
        for version in sorted(versions, key=lambda v: (PHASES.index(v.phase), v.fold is None, v.fold or 0))
    ]
