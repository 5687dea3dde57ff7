"""Intervals of trained models: kept by the training, the same when they are made anew, for every kind of model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import text, update
from sqlalchemy.orm import Session

from registry.crystals import CrystalData
from registry.database import session_scope
from registry.errors import ConfigurationError
from registry.model_store import ResolvedModel, resolve_model
from registry.models import Prediction
from tests.train.conftest import SmallRegistry
from train.prediction.intervals import fill_intervals, split_intervals
from train.prediction.predictor import Predictor
from train.prediction.stored import predict_crystals


def trained(small: SmallRegistry, kind: str) -> tuple[ResolvedModel, Predictor]:
    small.run(small.config(kind))
    with Session(small.engine) as session:
        (model,) = resolve_model(session, f"{kind}:k_vrh")
        session.expunge_all()
        return model, Predictor.load(session, small.settings, model)


@pytest.mark.parametrize("kind", ["baseline-mean", "baseline-magpie", "text", "stacked"])
def test_training_stores_intervals_of_its_split(small: SmallRegistry, kind: str) -> None:
    model, predictor = trained(small, kind)
    with Session(small.engine) as session:
        kept = {
            rid: (low, high, out)
            for rid, low, high, out in session.execute(
                text(
                    "SELECT revision_id, lower, upper, out_of_domain FROM v_predictions"
                    " WHERE model = :name AND subset IN ('validation', 'holdout')"
                ),
                {"name": kind},
            )
        }
        board = session.execute(
            text("SELECT cv_coverage, holdout_coverage, trained_on FROM v_leaderboard WHERE model = :name"),
            {"name": kind},
        ).one()
    made = split_intervals(predictor, small.engine)
    assert [part.subset for part in made] == ["validation", "holdout"]
    assert len(kept) == sum(len(part.revision_ids) for part in made) == 40
    for part in made:
        intervals = part.by_confidence[0.9]
        for i, rid in enumerate(part.revision_ids.tolist()):
            low, high, out = kept[rid]
            assert (low, high) == pytest.approx((intervals.lower[i], intervals.upper[i]))
            flags = intervals.out_of_domain
            assert out is (None if flags is None else bool(flags[i]))
            assert (flags is None) == (kind == "baseline-mean")
    truth = {part.subset: part.truth for part in made}
    inside = [
        np.mean(
            (part.by_confidence[0.9].lower <= truth[part.subset])
            & (truth[part.subset] <= part.by_confidence[0.9].upper)
        )
        for part in made
    ]
    assert board == (pytest.approx(inside[0], abs=1e-4), pytest.approx(inside[1], abs=1e-4), None)
    # requested predictions equal the stored ones
    for one in predict_crystals(small.engine, small.settings, model, list(kept)):
        assert (one.lower, one.upper, one.confidence) == (*kept[one.revision_id][:2], 0.9)


def test_files_have_intervals_and_unusual_crystals_are_out_of_domain(
    small: SmallRegistry, crystal_of: Callable[..., CrystalData]
) -> None:
    _, predictor = trained(small, "image")
    strange = crystal_of(3)
    noise = np.random.default_rng(0).uniform(0, 30, size=strange.slices[0].pixels.shape).astype(np.float32)
    strange = replace(strange, slices=(replace(strange.slices[0], pixels=noise),))
    assert predictor.predict([crystal_of(3)])[0].lower is None  # not calibrated yet
    predictor.calibrate(small.engine)
    usual, other = predictor.predict([crystal_of(3), strange])
    assert usual.lower is not None
    assert usual.upper is not None
    assert usual.lower <= usual.value <= usual.upper
    assert (usual.confidence, usual.out_of_domain, other.out_of_domain) == (0.9, False, True)
    (narrow,) = predictor.predict([crystal_of(3)], confidence=0.5)
    assert narrow.upper is not None
    assert narrow.lower is not None
    assert narrow.upper - narrow.lower < usual.upper - usual.lower


@pytest.mark.parametrize("confidence", [0.9, 0.8])
def test_no_interval_of_a_bulk_modulus_reaches_below_zero_by_itself(
    small: SmallRegistry, write: Callable[..., None], crystal_of: Callable[..., CrystalData], confidence: float
) -> None:
    with session_scope(small.engine) as session:  # most are soft, some are hard: residuals larger than predictions
        session.execute(
            text("UPDATE property_values SET value = 0.2 + 200 * (value / 200) ^ 6 WHERE property = 'k_vrh'")
        )
    write(crystal_of(2, source="twin"))
    predictions = {}
    for target in ("k_vrh", "efermi"):
        small.run(small.config("baseline-magpie", target=target))
        with Session(small.engine) as session:
            (model,) = resolve_model(session, f"baseline-magpie:{target}")
            ids = list(session.scalars(text("SELECT id FROM crystal_revisions ORDER BY id")))
            session.expunge_all()
        predictions[target] = predict_crystals(small.engine, small.settings, model, ids, confidence=confidence)
        assert {one.subset for one in predictions[target]} == {"validation", "holdout", "train"}
    with Session(small.engine) as session:
        query = text("SELECT target, min(lower) FROM v_predictions GROUP BY target")
        kept: dict[str, float] = {row.target: row.min for row in session.execute(query)}
    assert kept["k_vrh"] == 0
    assert kept["efermi"] < -1
    ends = [(one.lower, one.value, one.upper) for one in predictions["k_vrh"]]
    assert all(low is not None and high is not None and 0 <= low <= value <= high for low, value, high in ends)
    assert sum(low == 0 for low, _, _ in ends) > 5


def test_another_confidence_is_computed_and_the_stored_intervals_stay(
    small: SmallRegistry, write: Callable[..., None], crystal_of: Callable[..., CrystalData]
) -> None:
    model, _ = trained(small, "text")
    write(crystal_of(2, source="twin"))
    with Session(small.engine) as session:
        ids = [*small.revisions.values(), session.scalar(text("SELECT max(id) FROM crystal_revisions"))]
    usual = predict_crystals(small.engine, small.settings, model, ids)
    narrow = predict_crystals(small.engine, small.settings, model, ids, confidence=0.5)
    assert {one.subset for one in usual} == {"validation", "holdout", "train"}
    assert {one.confidence for one in narrow} == {0.5}
    for wide, other in zip(usual, narrow, strict=True):
        assert wide.value == other.value
        assert None not in (wide.lower, wide.upper, other.lower, other.upper)
        assert (wide.upper or 0) - (wide.lower or 0) >= (other.upper or 0) - (other.lower or 0)
    assert predict_crystals(small.engine, small.settings, model, ids) == usual
    with pytest.raises(ConfigurationError, match="would be infinite"):
        predict_crystals(small.engine, small.settings, model, ids, confidence=0.99)


def test_intervals_of_older_models_are_filled(small: SmallRegistry) -> None:
    model, predictor = trained(small, "baseline-magpie")
    before = predict_crystals(small.engine, small.settings, model, list(small.revisions.values()))
    with session_scope(small.engine) as session:
        session.execute(update(Prediction).values(lower=None, upper=None, out_of_domain=None))
    # computed on request although they are not stored
    again = predict_crystals(small.engine, small.settings, model, list(small.revisions.values()))
    assert [(p.lower, p.upper) for p in again] == [(pytest.approx(p.lower), pytest.approx(p.upper)) for p in before]
    assert fill_intervals(predictor, small.engine) == 40
    with Session(small.engine) as session:
        assert not session.scalar(text("SELECT count(*) FROM predictions WHERE lower IS NULL"))
