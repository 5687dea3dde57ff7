"""Content of the report of a model, read from the tables and views of the registry.

Only the last phase of an experiment is scored, as on the leaderboard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from ecdreg.models.scores import PHASES, Fold, Score, coverages, fold_scores, is_reference_model, last_phase, scores
from registry.errors import NotFoundError
from registry.models import (
    CrystalRevision,
    Description,
    Encoder,
    Epoch,
    Experiment,
    ImageRecipe,
    ModelAlias,
    ModelVersion,
    Property,
    SliceImage,
    SliceInput,
    Split,
    SplitMember,
)
from train.config.stored import config_of

__all__ = ["CalibrationPoint", "Curve", "LeaderboardEntry", "Point", "ReportContent", "Sample", "read_content"]


@dataclass(frozen=True)
class Curve:
    """Learning curve of one model version; losses are of the standardised target."""

    fold: int | None
    phase: str
    epoch: NDArray[np.int64]  # (epochs,)
    train_loss: NDArray[np.float64]  # (epochs,)
    stop_loss: NDArray[np.float64]  # (epochs,), NaN where there was no early stopping
    best_epoch: int | None
    seconds: float


@dataclass(frozen=True)
class Point:
    """A prediction with its true value; values in the unit of the target."""

    source_id: str
    revision_id: int
    formula: str
    prototype: str | None
    subset: str
    """``validation`` (out of fold) or ``holdout``."""
    fold: int | None
    true: float
    predicted: float
    spread: float | None
    lower: float | None = None
    upper: float | None = None
    out_of_domain: bool | None = None

    @property
    def error(self) -> float:
        """Predicted minus true, in the unit of the target."""
        return self.predicted - self.true


@dataclass(frozen=True)
class LeaderboardEntry:
    """A row of the leaderboard for the same split and target."""

    model: str
    version: int
    n_runs: int
    """Runs that differ in their seed; the scores are means over them."""
    cv: Score
    cv_r2_sd: float | None
    cv_rmse_sd: float | None
    holdout: Score | None
    same_rows: bool
    """Whether it was scored on exactly the rows of the reported model."""
    is_reported: bool
    """Whether it is the reported model."""
    trained_on: str | None = None
    """Data that a reference model was trained on elsewhere; None: trained in this registry."""


@dataclass(frozen=True)
class Sample:
    """A crystal with the slice image and the text that are the inputs of the model."""

    source_id: str
    formula: str
    space_group: str | None
    true: float | None
    predicted: float | None
    pixels: NDArray[np.float32] | None  # (channels, height, width), in the unit of the recipe
    text: str | None


@dataclass(frozen=True)
class CalibrationPoint:
    """Empirical coverage of intervals of one confidence."""

    subset: str
    """``validation`` (out of fold) or ``holdout``."""
    confidence: float
    coverage: float
    """Fraction of the true values inside their intervals."""
    low: float
    high: float
    """Ends of the Clopper-Pearson 95 % interval of the coverage."""


@dataclass(frozen=True)
class ReportContent:
    """Content of the report for one experiment."""

    experiment: Experiment
    refit: ModelVersion
    split: Split
    target: str
    unit: str
    target_description: str
    aliases: list[str]
    encoders: list[Encoder]
    folds: list[Fold]
    holdout: Score | None
    leaderboard: list[LeaderboardEntry]
    curves: list[Curve]
    points: list[Point]
    coverage: dict[str, dict[str, Any]]
    """Coverage of the stored 90 % intervals, by subset, as :func:`ecdreg.models.scores.coverages` returns it."""
    calibration: Sequence[CalibrationPoint]
    """Coverage of intervals of several confidences; empty where the weights are not available."""
    recipe: ImageRecipe | None
    channels: list[str]
    """Density kind, plane and level of theory of each channel of the slices, as ``total, (1-10), GGA``."""
    samples: list[Sample]
    text_level: str | None
    members: dict[str, int]
    """Members of the split by subset."""
    excluded: list[tuple[str, str]]
    """(id, reason), by id."""
    made_at: datetime
    code_version: str

    @property
    def window(self) -> tuple[float, float] | None:
        """Width and height of the slices [Å]; None where the recipe has no metric."""
        size = None if self.recipe is None else self.recipe.parameters.get("window")
        return None if size is None else (float(size[0]), float(size[1]))


def read_content(
    session: Session,
    experiment: Experiment,
    refit: ModelVersion,
    *,
    n_samples: int = 4,
    calibration: Sequence[CalibrationPoint] = (),
) -> ReportContent:
    """Read the content of a report.

    Parameters
    ----------
    session
        Only read.
    experiment, refit
        The experiment and the version that was refitted on all of cv, as
        :func:`registry.model_store.resolve_model` returns them.
    n_samples
        Number of crystals whose slices and texts are read.
    calibration
        Coverage by confidence, which needs the weights; see :func:`ecdreg.report.calibration.interval_calibration`.

    Raises
    ------
    NotFoundError
        If the target or the split of the experiment is not in the registry.
    """
    from registry.provenance import code_version

    split = session.get(Split, experiment.split_id)
    target = session.get(Property, experiment.target)
    if split is None or target is None:
        raise NotFoundError(
            f"split {experiment.split_id} or target {experiment.target!r} of {experiment.name!r} is missing; train it"
            " again"
        )
    versions = last_phase(session, experiment)
    points = _points(session, versions)
    recipe_name, text_level = _inputs(experiment, split)
    recipe, channels = _recipe(session, recipe_name)
    members = list(session.scalars(select(SplitMember).where(SplitMember.split_id == split.id)))
    return ReportContent(
        experiment=experiment,
        refit=refit,
        split=split,
        target=experiment.target,
        unit=target.unit,
        target_description=target.description,
        aliases=list(
            session.scalars(
                select(ModelAlias.alias).where(ModelAlias.experiment_id == experiment.id).order_by(ModelAlias.alias)
            )
        ),
        encoders=list(
            session.scalars(
                select(Encoder)
                .join(ModelVersion, Encoder.model_version_id == ModelVersion.id)
                .where(ModelVersion.experiment_id == experiment.id)
                .order_by(Encoder.name)
            )
        ),
        folds=fold_scores(session, versions),
        holdout=scores(session, refit).get("holdout"),
        leaderboard=_leaderboard(session, experiment, split),
        curves=_curves(session, experiment),
        points=points,
        coverage=coverages(session, versions),
        calibration=calibration,
        recipe=recipe,
        channels=channels,
        samples=_samples(session, points, recipe=recipe, text_level=text_level, n_samples=n_samples),
        text_level=text_level,
        members={subset: sum(m.subset == subset for m in members) for subset in ("cv", "holdout", "excluded")},
        excluded=sorted((m.source_id, m.reason or "") for m in members if m.subset == "excluded"),
        made_at=datetime.now().astimezone(),
        code_version=code_version(),
    )


# ------------------------------------------------------------------------------ queries


def _curves(session: Session, experiment: Experiment) -> list[Curve]:
    curves = []
    versions = session.scalars(select(ModelVersion).where(ModelVersion.experiment_id == experiment.id)).all()
    for version in sorted(versions, key=lambda v: (PHASES.index(v.phase), v.fold is None, v.fold or 0)):
        epochs = session.scalars(select(Epoch).where(Epoch.model_version_id == version.id).order_by(Epoch.epoch)).all()
        if not epochs:
            continue
        curves.append(
            Curve(
                fold=version.fold,
                phase=version.phase,
                epoch=np.array([e.epoch for e in epochs], dtype=np.int64),
                train_loss=np.array([e.train_loss for e in epochs], dtype=np.float64),
                stop_loss=np.array([np.nan if e.stop_loss is None else e.stop_loss for e in epochs], dtype=np.float64),
                best_epoch=version.best_epoch,
                seconds=sum(e.seconds for e in epochs),
            )
        )
    return curves


def _inputs(experiment: Experiment, split: Split) -> tuple[str | None, str | None]:
    """Names of the image recipe and of the text level: of the configuration of the model, else of its split."""
    recipe, text_level = split.parameters.get("recipe"), split.parameters.get("text_level")
    if not is_reference_model(experiment):
        config = config_of(experiment)
        recipe, text_level = config.recipe_name or recipe, config.text_level_name or text_level
    return recipe, text_level


def _recipe(session: Session, name: str | None) -> tuple[ImageRecipe | None, list[str]]:
    """The newest image recipe of a name, and descriptions of its channels."""
    if name is None:
        return None, []
    recipe = session.scalars(
        select(ImageRecipe).where(ImageRecipe.name == name).order_by(ImageRecipe.id.desc()).limit(1)
    ).first()
    if recipe is None:
        return None, []
    inputs = session.execute(
        select(SliceInput.channel, SliceInput.kind, SliceInput.level_of_theory)
        .where(SliceInput.recipe_id == recipe.id)
        .distinct()
        .order_by(SliceInput.channel)
    ).all()
    planes = recipe.parameters.get("planes") or []
    kinds = recipe.parameters.get("kinds") or []
    named: dict[int, str] = {}
    for channel, kind, level_of_theory in inputs:
        # The channels are sorted by plane, then by density kind.
        plane = planes[channel // len(kinds)] if planes and kinds else None
        indices = "" if plane is None else f", ({''.join(map(str, plane['miller']))})"
        named[channel] = (
            f"{named[channel]} / {level_of_theory}" if channel in named else f"{kind}{indices}, {level_of_theory}"
        )
    return recipe, [named[channel] for channel in sorted(named)]


_POINTS = """
SELECT source || ':' || source_id AS source_id, v.revision_id, formula, r.prototype, subset, fold,
       true_value AS true, predicted, spread, lower, upper, out_of_domain
FROM v_predictions v
JOIN (SELECT id, prototype FROM crystal_revisions) r ON r.id = v.revision_id
WHERE model_version_id = ANY(:versions) AND true_value IS NOT NULL
  AND subset = CASE WHEN fold IS NULL THEN 'holdout' ELSE 'validation' END
ORDER BY source, source_id
"""


def _points(session: Session, versions: Sequence[ModelVersion]) -> list[Point]:
    """Out-of-fold predictions of the fold models and holdout predictions of the refit."""
    rows = session.execute(text(_POINTS), {"versions": [v.id for v in versions]})
    return [Point(**row) for row in rows.mappings()]


def _samples(
    session: Session, points: Sequence[Point], *, recipe: ImageRecipe | None, text_level: str | None, n_samples: int
) -> list[Sample]:
    """Crystals at equal steps of the rank of their true value, the smallest and the largest included."""
    ranked = sorted(points, key=lambda p: (p.true, p.source_id))
    ranks = sorted({round(i) for i in np.linspace(0, len(ranked) - 1, n_samples)}) if ranked else []
    samples = []
    for point in (ranked[rank] for rank in ranks):
        image = None if recipe is None else session.get(SliceImage, (point.revision_id, recipe.id))
        description = None if text_level is None else session.get(Description, (point.revision_id, text_level))
        revision = session.get_one(CrystalRevision, point.revision_id)
        samples.append(
            Sample(
                source_id=point.source_id,
                formula=point.formula,
                space_group=revision.space_group_symbol,
                true=point.true,
                predicted=point.predicted,
                pixels=None if image is None else image.pixels.reshape(image.channels, image.height, image.width),
                text=None if description is None else description.text,
            )
        )
    return samples


_ROWS = """
SELECT e.name, e.config_sha256, md5(string_agg(p.revision_id || p.subset, ',' ORDER BY p.subset, p.revision_id)) AS rows
FROM experiments e
JOIN model_versions m ON m.experiment_id = e.id
JOIN predictions p ON p.model_version_id = m.id
                  AND p.subset = CASE WHEN m.fold IS NULL THEN 'holdout' ELSE 'validation' END
WHERE e.target = :target AND e.split_id = :split_id AND e.status = 'finished'
  AND array_position(CAST(:phases AS text[]), m.phase) = (
      SELECT max(array_position(CAST(:phases AS text[]), o.phase)) FROM model_versions o WHERE o.experiment_id = e.id
  )
GROUP BY e.id
ORDER BY e.version
"""


def _leaderboard(session: Session, experiment: Experiment, split: Split) -> list[LeaderboardEntry]:
    """The leaderboard of the split and target, with a mark for models that were scored on the same crystals."""
    board = session.execute(
        text("SELECT * FROM v_leaderboard WHERE target = :target AND split = :split"),
        {"target": experiment.target, "split": split.name},
    ).mappings()
    scored = session.execute(
        text(_ROWS), {"target": experiment.target, "split_id": split.id, "phases": list(PHASES)}
    ).mappings()
    rows_of = {(row["name"], row["config_sha256"]): row["rows"] for row in scored}  # the newest version is last
    reported = rows_of.get((experiment.name, experiment.config_sha256))
    return [
        LeaderboardEntry(
            model=row["model"],
            version=row["version"],
            n_runs=row["n_runs"],
            cv=Score(n=row["n_cv"] or 0, r2=row["cv_r2"], rmse=row["cv_rmse"], mae=None),
            cv_r2_sd=row["cv_r2_sd"],
            cv_rmse_sd=row["cv_rmse_sd"],
            holdout=None
            if row["n_holdout"] is None
            else Score(n=row["n_holdout"], r2=row["holdout_r2"], rmse=row["holdout_rmse"], mae=None),
            same_rows=reported is not None and rows_of.get((row["model"], row["config_sha256"])) == reported,
            is_reported=(row["model"], row["config_sha256"]) == (experiment.name, experiment.config_sha256),
            trained_on=row["trained_on"],
        )
        for row in board
    ]
