"""Content of the report of a model, read from the registry."""

from __future__ import annotations

import numpy as np

from ecdreg.report.content import ReportContent


def test_content_is_read_from_the_registry(content: ReportContent) -> None:
    assert (content.target, content.unit, content.experiment.version) == ("k_vrh", "GPa", 2)
    assert [f.fold for f in content.folds] == [0, 1, 2]
    assert {f.score.rmse for f in content.folds} == {4.0}
    assert content.holdout is not None
    assert content.holdout.n == content.members["holdout"]
    assert sum(f.score.n for f in content.folds) == content.members["cv"]
    assert sum(content.members.values()) == 24
    # Crystal 7 has an impossible value: it is only among the excluded.
    assert [ident for ident, _ in content.excluded] == ["test:mp-8"]
    assert content.excluded[0][1].startswith("suspect")
    assert len(content.points) == 23
    assert {round(abs(p.error), 9) for p in content.points} == {4.0}
    assert all((p.spread == 2.0) == (p.subset == "holdout") for p in content.points)
    assert [(c.fold, c.best_epoch) for c in content.curves] == [(0, 2), (1, 2), (2, 2), (None, 2)]
    assert np.isnan(content.curves[-1].stop_loss).all()
    assert content.channels == ["total, (1-10), GGA", "deformation, (1-10), GGA"]
    assert content.window == (12.0, 12.0)


def test_samples_span_the_true_values(content: ReportContent) -> None:
    true = [s.true for s in content.samples]
    everything = [p.true for p in content.points]
    assert len(true) == 4
    assert true == sorted(t for t in true if t is not None)
    assert (true[0], true[-1]) == (min(everything), max(everything))
    assert all(s.pixels is not None and s.pixels.shape == (2, 24, 24) for s in content.samples)


def test_leaderboard_marks_the_reported_model(content: ReportContent) -> None:
    entries = {(entry.model, entry.version): entry for entry in content.leaderboard}
    assert {name for name, entry in entries.items() if entry.is_reported} == {("image", 2)}
    # In the order of the leaderboard: by the error in cross-validation.
    assert [entry.model for entry in content.leaderboard] == ["image", "image", "baseline-mean"]
    assert all(entry.same_rows for entry in content.leaderboard)
