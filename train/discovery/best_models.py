"""Ranking of the models of a property by their error in cross-validation."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.model_store import ResolvedModel
from registry.models import Experiment, ModelVersion
from registry.properties import property_named

__all__ = ["RankedModel", "best_models"]


@dataclass(frozen=True)
class RankedModel:
    """A model with the alias ``best``, and its score in cross-validation."""

    model: ResolvedModel
    cv_rmse: float
    """Mean over the folds, in the unit of the target."""
    n_cv: int
    """Number of cross-validated crystals."""
    split: str
    """Name of the split."""


def best_models(session: Session, target: str, *, split: str | None = None) -> list[RankedModel]:
    """Models with the alias ``best`` for a target, by increasing error in cross-validation.

    Scores are comparable within one split only. The mean baseline is excluded.

    Parameters
    ----------
    session
        Only read.
    target
        Name of a property.
    split
        Name of the split of the cross-validation; None for ``default`` if there are models on it, otherwise for the
        split of the newest model.

    Raises
    ------
    UnknownNameError
        If the property is unknown.
    """
    rows = session.execute(
        text(
            """
            SELECT x.id, a.model_version_id, s.name AS split, avg(m.value) AS cv_rmse, sum(m.n) AS n_cv
            FROM model_aliases a
            JOIN experiments x ON x.id = a.experiment_id
            JOIN splits s ON s.id = x.split_id
            JOIN model_versions refit ON refit.id = a.model_version_id AND refit.status = 'ready'
            JOIN model_versions f ON f.experiment_id = x.id AND f.fold IS NOT NULL AND f.phase = refit.phase
            JOIN metrics m ON m.model_version_id = f.id AND m.subset = 'validation' AND m.name = 'rmse'
            WHERE a.alias = 'best' AND a.target = :target AND x.kind <> 'baseline-mean'
            GROUP BY x.id, a.model_version_id, s.name
            ORDER BY avg(m.value), x.id DESC
            """
        ),
        {"target": property_named(target).name},
    ).all()
    if split is None and rows:
        splits = {row.split for row in rows}
        split = "default" if "default" in splits else max(rows, key=lambda row: row.id).split
    return [
        RankedModel(
            ResolvedModel(session.get_one(Experiment, row.id), session.get_one(ModelVersion, row.model_version_id)),
            float(row.cv_rmse),
            int(row.n_cv),
            row.split,
        )
        for row in rows
        if row.split == split
    ]
