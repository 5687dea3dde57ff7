"""Experiments: what they write, that they are identified, resumed and never half there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from registry.crystals import CrystalData
from registry.database import session_scope
from registry.encoders import EncoderKey, ensure_encoder, resolve_encoder, set_encoder_alias
from registry.errors import ModelError, NotFoundError
from registry.model_store import resolve_model
from registry.models import (
    Embedding,
    Encoder,
    Epoch,
    Experiment,
    Metric,
    ModelAlias,
    ModelVersion,
    Prediction,
    SplitMember,
)
from registry.splits.creation import SplitRule, create_split
from tests.train.conftest import SmallRegistry
from train.experiments.locks import run_key, run_lock
from train.experiments.publish import update_default_encoder


class Interrupting:
    """A progress that presses Ctrl-C after so many folds."""

    def __init__(self, folds: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.left = folds
        self.error = error
        self.notes: list[str] = []

    def begin(self, label: str, total: int | None = None) -> None:
        self.label = label

    def advance(self, steps: int = 1, note: str = "") -> None:
        if steps and "fold" in note:
            self.notes.append(note)
            self.left -= 1
            if self.left == 0:
                raise self.error

    def end(self) -> None: ...

    def message(self, line: str) -> None: ...


def versions(session: Session, experiment_id: int) -> list[Any]:
    return list(
        session.execute(
            select(ModelVersion.fold, ModelVersion.phase, ModelVersion.artifact_sha256, ModelVersion.best_epoch)
            .where(ModelVersion.experiment_id == experiment_id)
            .order_by(ModelVersion.fold, ModelVersion.phase.desc())
        )
    )


def test_an_experiment_leaves_versions_curves_scores_predictions_and_an_encoder(small: SmallRegistry) -> None:
    result = small.run(small.config("image"))
    assert (result.outcome, result.model) == ("trained", "image:k_vrh@1")
    with Session(small.engine) as session:
        found = versions(session, result.experiment_id)
        assert [(fold, phase) for fold, phase, _, _ in found] == [
            (0, "readout"),
            (1, "readout"),
            (2, "readout"),
            (None, "readout"),
        ]
        *folds, refit = [best for *_, best in found]
        assert refit == sorted(folds)[1]  # the median of three
        roles = dict(session.execute(select(SplitMember.revision_id, SplitMember.subset)).all())
        predictions = session.execute(select(Prediction.revision_id, Prediction.subset, Prediction.spread)).all()
        assert {(p.revision_id, p.subset) for p in predictions} == {
            (rid, "validation" if subset == "cv" else "holdout") for rid, subset in roles.items()
        }
        assert all((p.spread is not None and p.spread > 0) == (p.subset == "holdout") for p in predictions)
        curve = session.scalars(select(Epoch).order_by(Epoch.model_version_id, Epoch.epoch)).all()
        assert {e.stop_loss is None for e in curve} == {True, False}  # only the refit has no rows to stop on
        subsets = session.execute(select(ModelVersion.fold.is_(None), Metric.subset).join(Metric).distinct())
        assert set(subsets) == {(False, "train"), (False, "validation"), (True, "train"), (True, "holdout")}
        encoder = session.scalars(select(Encoder).where(Encoder.name == "image:k_vrh@1")).one()
        vectors = session.scalar(select(func.count()).where(Embedding.encoder_id == encoder.id))
        assert (encoder.dim, vectors) == (8, 40)
        assert session.scalar(text("SELECT cv_r2 FROM v_leaderboard")) == pytest.approx(result.cv["r2"], abs=1e-4)


def test_the_stop_rows_are_fitted_to_by_nothing(small: SmallRegistry) -> None:
    result = small.run(small.config("image"))
    with Session(small.engine) as session:
        rows = session.execute(
            select(ModelVersion.fold, ModelVersion.n_train, Metric.n, Metric.subset)
            .join(Metric)
            .where(ModelVersion.experiment_id == result.experiment_id, Metric.name == "rmse")
        ).all()
        cv = session.scalar(select(func.count()).where(SplitMember.subset == "cv")) // 2  # two targets
    scored = {r.fold: r.n for r in rows if r.subset == "validation"}
    for row in rows:
        if row.fold is not None and row.subset == "train":
            training = cv - scored[row.fold]
            assert row.n_train == row.n == training - -(-training // 10)


def test_the_same_again_is_left_alone_and_again_makes_a_new_version(small: SmallRegistry) -> None:
    first = small.run(small.config("image"))
    second = small.run(small.config("image"))
    assert (second.outcome, second.experiment_id, second.cv) == ("unchanged", first.experiment_id, first.cv)
    third = small.run(small.config("image"), again=True)
    assert (third.outcome, third.version) == ("trained", 2)
    with Session(small.engine) as session:
        assert versions(session, third.experiment_id) == versions(session, first.experiment_id)


def test_another_seed_or_an_input_that_changed_is_another_experiment(
    small: SmallRegistry, write: Callable[..., None], crystal_of: Callable[..., CrystalData]
) -> None:
    small.run(small.config("text"))
    assert small.run(small.config("text"), seed=1).outcome == "trained"
    with small.engine.begin() as connection:
        connection.execute(text("UPDATE descriptions SET text = text || ' Hard.'"))
    assert small.run(small.config("text")).outcome == "trained"


def test_an_interrupted_experiment_goes_on_and_ends_as_if_nothing_had_happened(small: SmallRegistry) -> None:
    with pytest.raises(KeyboardInterrupt):
        small.run(small.config("image"), progress=Interrupting(2))
    with Session(small.engine) as session:
        cut_off = session.scalars(select(Experiment)).one()
        assert cut_off.status == "interrupted"
        assert [fold for fold, *_ in versions(session, cut_off.id)] == [0, 1]
        with pytest.raises(NotFoundError):
            resolve_model(session, "image")
    progress = Interrupting(99)
    resumed = small.run(small.config("image"), progress=progress)
    assert (resumed.outcome, resumed.experiment_id, len(progress.notes)) == ("resumed", cut_off.id, 1)
    whole = small.run(small.config("image"), again=True)
    with Session(small.engine) as session:
        assert versions(session, resumed.experiment_id) == versions(session, whole.experiment_id)
    assert resumed.holdout == whole.holdout


def test_what_a_killed_process_left_running_goes_on(small: SmallRegistry) -> None:
    with pytest.raises(KeyboardInterrupt):
        small.run(small.config("text"), progress=Interrupting(1))
    with small.engine.begin() as connection:
        connection.execute(update(Experiment).values(status="running", finished_at=None))
    assert small.run(small.config("text")).outcome == "resumed"


def test_an_experiment_that_fails_is_marked_and_never_answers(small: SmallRegistry) -> None:
    with pytest.raises(ZeroDivisionError):
        small.run(small.config("text"), progress=Interrupting(1, ZeroDivisionError))
    with Session(small.engine) as session:
        assert session.scalar(select(Experiment.status)) == "failed"
    result = small.run(small.config("text"))
    assert (result.outcome, result.version) == ("trained", 2)


def test_two_processes_do_not_train_the_same_run_at_once(small: SmallRegistry) -> None:
    small.run(small.config("text"))
    with Session(small.engine) as session:
        row = session.scalars(select(Experiment)).one()
    run = run_key({"config_sha256": row.config_sha256, "seed": row.seed, "split_id": row.split_id})
    with run_lock(small.engine, "text", "k_vrh", run=run):
        with pytest.raises(ModelError, match="being trained by another process"):
            small.run(small.config("text"), again=True)
        assert small.run(small.config("text"), seed=1).outcome == "trained"


def test_a_stack_trains_its_towers_once_and_reuses_them(small: SmallRegistry) -> None:
    image = small.run(small.config("image"))
    stacked = small.run(small.config("stacked"))
    assert [(r.name, r.outcome) for r in stacked.prerequisites] == [("image", "unchanged"), ("text", "trained")]
    assert stacked.prerequisites[0].experiment_id == image.experiment_id
    with Session(small.engine) as session:
        found = versions(session, stacked.experiment_id)
        # Only the last phase keeps its weights.
        assert [(phase, sha is not None) for _, phase, sha, _ in found] == [("readout", False), ("finetune", True)] * 4
    assert stacked.cv["r2"] > 0.3


def test_out_of_fold_features_make_another_stack(small: SmallRegistry) -> None:
    inside = small.run(small.config("stacked"))
    outside = small.run(small.config("stacked", stack_features="out-of-fold"))
    assert [r.outcome for r in outside.prerequisites] == ["unchanged", "unchanged"]
    assert outside.cv != inside.cv
    assert outside.cv["r2"] > 0.3


def test_finetuned_backbones_are_kept_and_used(small: SmallRegistry) -> None:
    stacked = small.run(small.config("stacked", finetune_enabled=True))
    frozen = small.run(small.config("image"))
    with Session(small.engine) as session:
        tuned = versions(session, stacked.prerequisites[0].experiment_id)
        assert [phase for _, phase, *_ in tuned] == ["readout", "finetune"] * 4
        readout = {e.model_version_id: e.train_loss for e in session.scalars(select(Epoch))}
        assert readout
    assert frozen.experiment_id != stacked.prerequisites[0].experiment_id


def test_baselines_come_along_unless_they_are_there(small: SmallRegistry) -> None:
    first = small.run(small.config("text"), baselines=True)
    assert [(r.name, r.outcome) for r in first.prerequisites] == [
        ("baseline-mean", "trained"),
        ("baseline-magpie", "trained"),
    ]
    mean, magpie = first.prerequisites
    assert mean.cv["r2"] <= 0 < 0.5 < magpie.cv["r2"]
    second = small.run(small.config("text"), baselines=True, again=True)
    assert [r.outcome for r in second.prerequisites] == ["unchanged", "unchanged"]
    with Session(small.engine) as session:
        models = session.scalars(text("SELECT model FROM v_leaderboard")).all()
        assert set(models) == {"text", "baseline-mean", "baseline-magpie"}
        # The features of compositions are an encoder like any other.
        assert session.scalars(select(Encoder.dim).where(Encoder.name == "magpie")).one() == 132


def test_best_is_chosen_by_cross_validation_alone(small: SmallRegistry) -> None:
    good = small.run(small.config("image"))
    poor = small.run(small.config("image", readout={"learning_rate": 1e-6, "max_epochs": 1}))
    assert poor.cv["rmse"] > good.cv["rmse"]
    with Session(small.engine) as session:
        alias = session.scalars(select(ModelAlias)).one()
        assert (alias.alias, alias.experiment_id) == ("best", good.experiment_id)
        assert resolve_model(session, "image:k_vrh@best")[0].experiment.id == good.experiment_id
        assert resolve_model(session, "image:k_vrh")[0].experiment.id == poor.experiment_id


def test_best_is_the_best_on_the_split_of_the_newest(small: SmallRegistry) -> None:
    with session_scope(small.engine) as session:
        create_split(session, "other", target="k_vrh", rule=SplitRule(n_folds=3, holdout=0.2, seed=1))
    config = small.config("image")
    poor = {"learning_rate": 1e-6, "max_epochs": 1}
    good = small.run(config)
    small.run(small.config("image", readout=poor), split="other")
    worse = small.run(small.config("image", readout=poor | {"max_epochs": 2}), split="other")

    def best() -> int:
        with Session(small.engine) as session:
            return resolve_model(session, "image:k_vrh@best")[0].experiment.id

    with Session(small.engine) as session:
        splits = session.scalars(select(Experiment.split_id).order_by(Experiment.id)).all()
    assert splits[0] != splits[1] == splits[2]
    assert good.cv["rmse"] < worse.cv["rmse"]
    assert best() != good.experiment_id  # it was scored on other crystals
    small.run(small.config("image", readout=poor))
    assert best() == good.experiment_id


def test_an_encoder_without_vectors_is_never_the_default(small: SmallRegistry) -> None:
    with session_scope(small.engine) as session:
        ensure_encoder(
            session, EncoderKey(weights_sha256="ab" * 32, preprocessing={}), name="empty", modality="image", dim=3
        )
        assert update_default_encoder(session) is None
    small.run(small.config("text"))
    with session_scope(small.engine) as session:
        assert resolve_encoder(session).name == "tiny-text:keywords"  # though images come before texts


def test_the_default_encoder_follows_a_rule_until_somebody_chooses(small: SmallRegistry) -> None:
    def default() -> str:
        with Session(small.engine) as session:
            return resolve_encoder(session).name

    small.run(small.config("text"))
    assert default() == "tiny-text:keywords"
    small.run(small.config("stacked"))
    assert default() == "tiny-image:metric"  # frozen, and images before texts
    with Session(small.engine) as session, session.begin():
        set_encoder_alias(session, "default", resolve_encoder(session, "image:k_vrh@1"))
    small.run(small.config("image"), again=True)
    assert default() == "image:k_vrh@1"


def test_a_missing_split_is_named(small: SmallRegistry) -> None:
    with pytest.raises(NotFoundError, match="no split 'none' for k_vrh"):
        small.run(small.config("image"), split="none")
