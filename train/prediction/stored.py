"""Predictions for crystals of the registry: stored ones are returned, new ones are computed and stored.

For crystals of the model's split the stored predictions of models that were not trained on them are returned: the
out-of-fold prediction of a cross-validated crystal, and the holdout prediction of a holdout crystal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Engine, and_, exists, or_, select
from sqlalchemy.orm import Session

from registry.crystals import CrystalData, material_key_of
from registry.database import session_scope
from registry.jobs.progress import Progress
from registry.model_store import IntervalColumns, ResolvedModel, write_predictions
from registry.models import Crystal, CrystalRevision, Experiment, ModelVersion, Prediction, SplitMember
from registry.settings import Settings
from train.features.labels import known_values, suspect_values
from train.prediction.intervals import split_intervals
from train.prediction.predictor import PredictionResult, Predictor
from train.prediction.uncertainty import CONFIDENCE

__all__ = ["CrystalPrediction", "predict_crystals", "was_fitted_to"]


@dataclass(frozen=True)
class CrystalPrediction:
    """Prediction of a model for one crystal of the registry."""

    revision_id: int
    value: float
    """In the unit of the target."""
    spread: float | None
    """As in :class:`train.prediction.predictor.PredictionResult`; None for a cross-validated crystal, of which only one
    fold's prediction is out of fold."""
    known: float | None
    """Value at the preferred level of theory, in the unit of the target; it may be suspect."""
    subset: str
    """``validation`` or ``holdout``: the model was not trained on the crystal; ``train``: it was trained on this
    material; ``none``: the crystal is outside the model's split."""
    lower: float | None = None
    """As in :class:`train.prediction.predictor.PredictionResult`; around the out-of-fold prediction for a
    cross-validated crystal."""
    upper: float | None = None
    confidence: float | None = None
    out_of_domain: bool | None = None
    suspect: bool = False
    """Whether the known value is outside its plausible range; splits exclude such values."""


def predict_crystals(
    engine: Engine,
    settings: Settings,
    model: ResolvedModel,
    revision_ids: Sequence[int],
    *,
    confidence: float = CONFIDENCE,
    progress: Progress | None = None,
) -> list[CrystalPrediction]:
    """Predict a property of crystals of the registry; stored predictions are returned, new ones are stored.

    Parameters
    ----------
    engine
        Predictions for crystals outside the split are written to it.
    settings
        Location of the weights.
    model
        From ``registry.model_store.resolve_model``.
    revision_ids
        N revisions; the result is in their order.
    confidence
        Nominal coverage of the intervals. Those of :data:`train.prediction.uncertainty.CONFIDENCE` are stored; others
        are computed for each call.
    progress
        Reports features that are computed.

    Raises
    ------
    IncompatibleInputError
        If a crystal lacks an input of the model.
    ArtifactError
        If weights are missing or do not match their checksum.
    """
    with Session(engine) as session:
        known = known_values(session, model.experiment.target, revision_ids)
        made = _made(session, model, revision_ids, known)
        new = [rid for rid in dict.fromkeys(int(r) for r in revision_ids) if rid not in made]
        anew = [rid for rid, one in made.items() if one.lower is None or confidence != CONFIDENCE]
        predictor = Predictor.load(session, settings, model) if new or anew else None
        fitted = _fitted_to(session, model.experiment, new)
        suspect = suspect_values(session, model.experiment.target, revision_ids)
    if predictor is not None and new:
        results = predictor.predict_registered(engine, new, confidence=confidence, progress=progress)
        kept = results if confidence == CONFIDENCE else predictor.predict_registered(engine, new, progress=progress)
        for rid, result in zip(new, results, strict=True):
            subset = "train" if rid in fitted else "none"
            made[rid] = CrystalPrediction(
                rid,
                result.value,
                result.spread,
                known.get(rid),
                subset,
                lower=result.lower,
                upper=result.upper,
                confidence=result.confidence,
                out_of_domain=result.out_of_domain,
            )
        with session_scope(engine) as session:
            for subset in ("train", "none"):
                chosen = [(rid, result) for rid, result in zip(new, kept, strict=True) if made[rid].subset == subset]
                _write(session, model, chosen, subset=subset)
    if predictor is not None and anew and predictor.calibrate(engine, progress=progress) is not None:
        made |= _other_intervals(predictor, engine, [made[rid] for rid in anew], confidence, progress)
    return [replace(made[int(rid)], suspect=int(rid) in suspect) for rid in revision_ids]


def _other_intervals(
    predictor: Predictor,
    engine: Engine,
    predictions: Sequence[CrystalPrediction],
    confidence: float,
    progress: Progress | None,
) -> dict[int, CrystalPrediction]:
    """The same predictions with newly computed intervals: of another confidence, or not stored yet."""
    found: dict[int, tuple[float | None, float | None, bool | None]] = {}
    for part in split_intervals(predictor, engine, (confidence,), progress=progress):
        intervals, flags = part.by_confidence[confidence], part.by_confidence[confidence].out_of_domain
        for i, rid in enumerate(part.revision_ids.tolist()):
            flag = None if flags is None else bool(flags[i])
            found[rid] = (float(intervals.lower[i]), float(intervals.upper[i]), flag)
    others = [p.revision_id for p in predictions if p.revision_id not in found]  # duplicates of training rows
    results = predictor.predict_registered(engine, others, confidence=confidence) if others else []
    for rid, result in zip(others, results, strict=True):
        found[rid] = (result.lower, result.upper, result.out_of_domain)
    return {
        p.revision_id: replace(p, lower=lower, upper=upper, confidence=confidence, out_of_domain=flag)
        for p in predictions
        for lower, upper, flag in [found[p.revision_id]]
    }


def _write(
    session: Session, model: ResolvedModel, chosen: Sequence[tuple[int, PredictionResult]], *, subset: str
) -> None:
    results = [result for _, result in chosen]

    def column(name: str) -> list[Any] | None:
        values = [getattr(result, name) for result in results]
        return None if any(value is None for value in values) else values

    write_predictions(
        session,
        model.model_version.id,
        [rid for rid, _ in chosen],
        [result.value for result in results],
        subset=subset,
        spread=column("spread"),
        intervals=IntervalColumns(lower=column("lower"), upper=column("upper"), out_of_domain=column("out_of_domain")),
    )


def _made(
    session: Session, model: ResolvedModel, revision_ids: Sequence[int], known: Mapping[int, float]
) -> dict[int, CrystalPrediction]:
    """Stored predictions inside the split; those outside it are computed again."""
    found = session.scalars(
        select(Prediction)
        .join(ModelVersion, ModelVersion.id == Prediction.model_version_id)
        .where(
            ModelVersion.experiment_id == model.experiment.id,
            ModelVersion.phase == model.model_version.phase,
            Prediction.subset != "none",
            Prediction.revision_id.in_([int(rid) for rid in revision_ids]),
        )
    )
    return {
        p.revision_id: CrystalPrediction(
            p.revision_id,
            p.value,
            p.spread,
            known.get(p.revision_id),
            p.subset,
            lower=p.lower,
            upper=p.upper,
            confidence=None if p.lower is None else CONFIDENCE,
            out_of_domain=p.out_of_domain,
        )
        for p in found
    }


def was_fitted_to(session: Session, experiment: Experiment, crystal: CrystalData) -> bool:
    """Whether a model was trained on the material of a crystal that was read from files.

    Crystals of the same material key are the same material; so are those of the same formula, prototype and space
    group, as in :func:`registry.crystals.material_key_of`.

    Parameters
    ----------
    session
        Only read.
    experiment
        Experiment of the model.
    crystal
        From ``ingest.preparation``.
    """
    alike = and_(
        CrystalRevision.formula == crystal.formula,
        CrystalRevision.prototype == crystal.prototype,
        CrystalRevision.space_group_number == crystal.space_group_number,
    )
    key = material_key_of(crystal.source_id, crystal)
    return bool(
        session.scalar(
            select(
                exists()
                .where(SplitMember.split_id == experiment.split_id, SplitMember.subset == "cv")
                .where(SplitMember.revision_id == CrystalRevision.id, CrystalRevision.crystal_id == Crystal.id)
                .where(or_(Crystal.material_key == key, alike))
            )
        )
    )


def _fitted_to(session: Session, experiment: Experiment, revision_ids: Sequence[int]) -> set[int]:
    """Revisions of materials that the model was trained on, under another revision or source."""
    fitted = (
        select(Crystal.material_key)
        .join(SplitMember, SplitMember.crystal_id == Crystal.id)
        .where(SplitMember.split_id == experiment.split_id, SplitMember.subset == "cv")
    )
    return set(
        session.scalars(
            select(CrystalRevision.id)
            .join(Crystal, Crystal.id == CrystalRevision.crystal_id)
            .where(CrystalRevision.id.in_(revision_ids), Crystal.material_key.in_(fitted))
        )
    )
