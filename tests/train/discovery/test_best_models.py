"""Ranking of the models of a property."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.errors import UnknownNameError
from tests.rock_salts import SALTS
from train.discovery.best_models import best_models


def test_models_are_ranked_by_their_error_in_cross_validation(session: Session, baseline: None) -> None:
    (ranked,) = best_models(session, "k_vrh")
    assert (ranked.model.name, ranked.split) == ("baseline-magpie:k_vrh@1", "default")
    cv_rmse = session.scalar(
        text("SELECT cv_rmse FROM v_leaderboard WHERE model = 'baseline-magpie' AND target = 'k_vrh'")
    )
    assert ranked.cv_rmse == pytest.approx(cv_rmse, abs=5e-4)
    assert 20 < ranked.n_cv < len(SALTS) - 2, "without the holdout, the unknown and the suspect value"
    assert best_models(session, "k_vrh", split="default") == [ranked]
    assert [one.model.name for one in best_models(session, "formation_energy_per_atom")] == [
        "baseline-magpie:formation_energy_per_atom@1"
    ]


def test_there_may_be_no_model(session: Session, baseline: None) -> None:
    assert best_models(session, "k_vrh", split="another") == []
    assert best_models(session, "band_gap") == []
    with pytest.raises(UnknownNameError, match="did you mean 'k_vrh'"):
        best_models(session, "k_vhr")
