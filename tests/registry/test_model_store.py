"""Tests of the model store: experiments, names, aliases, metrics and predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from registry.errors import ConfigurationError, ModelError, NotFoundError, UnknownNameError
from registry.files.artifacts import StoredArtifact
from registry.model_store import (
    EpochRow,
    IntervalColumns,
    add_model_version,
    config_sha256,
    find_experiment,
    finish_experiment,
    resolve_model,
    set_alias,
    start_experiment,
    write_epochs,
    write_metrics,
    write_predictions,
)
from registry.models import Epoch, Experiment, Metric, ModelVersion, Prediction, Split
from registry.properties import TARGETS

if TYPE_CHECKING:
    from tests.registry.conftest import AddCrystal

CONFIG = {"kind": "stacked", "width": 256, "seed": 0}
ARTIFACT = StoredArtifact("ab/" + "ab" * 32 + ".safetensors", "ab" * 32)


@dataclass
class Trainer:
    """Writes experiments in the same order as a training."""

    session: Session
    splits: dict[str, int]

    def start(self, name: str = "stacked", target: str = "k_vrh", **changes: Any) -> Experiment:
        parts = {"kind": "stacked", "config": CONFIG, "seed": 0, "split_id": self.splits[target]} | changes
        return start_experiment(self.session, name=name, target=target, **parts)

    def version(self, experiment: Experiment, **changes: Any) -> ModelVersion:
        parts = {"fold": None, "phase": "readout", "n_train": 10, "scalers": {}, "artifact": ARTIFACT} | changes
        return add_model_version(self.session, experiment, **parts)

    def train(self, name: str = "stacked", target: str = "k_vrh") -> tuple[Experiment, ModelVersion]:
        experiment = self.start(name, target)
        self.version(experiment, fold=0)
        refit = self.version(experiment)
        finish_experiment(self.session, experiment)
        return experiment, refit


@pytest.fixture
def trainer(session: Session) -> Trainer:
    rows = [
        {"name": "s", "target": target, "origin": "rule", "parameters": {}, "seed": 0, "n_folds": 5}
        for target in TARGETS
    ]
    splits = session.execute(insert(Split).returning(Split.target, Split.id), rows).all()
    return Trainer(session, dict(splits))


@pytest.fixture
def revisions(add_crystal: AddCrystal) -> list[int]:
    return [add_crystal(f"mp-{i}", densities=False).revision_id for i in range(3)]


# ---------------------------------------------------------------------------- experiments


def test_versions_count_by_name_and_target(trainer: Trainer) -> None:
    assert [trainer.start().version for _ in range(3)] == [1, 2, 3]
    assert trainer.start(target="efermi").version == 1
    assert trainer.start("image").version == 1


def test_config_checksum_leaves_the_seed_out() -> None:
    assert config_sha256({"a": 1, "seed": 1}) == config_sha256({"seed": 2, "a": 1})
    assert config_sha256({"a": 1}) != config_sha256({"a": 2})


@pytest.mark.parametrize("name", ["", "Stacked", "a b", "a:b", "a@b", "-a"])
def test_invalid_names_are_refused(trainer: Trainer, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be the name of a model"):
        trainer.start(name)


def test_only_finished_experiments_are_found(session: Session, trainer: Trainer) -> None:
    def find(**changes: Any) -> Experiment | None:
        wanted = {
            "name": "stacked",
            "target": "k_vrh",
            "config_sha256": config_sha256(CONFIG),
            "seed": 0,
            "split_id": trainer.splits["k_vrh"],
        }
        return find_experiment(session, **(wanted | changes))

    killed = trainer.start()
    trainer.version(killed)
    assert find() is None, "a process that died leaves 'running' behind"
    with pytest.raises(NotFoundError):
        resolve_model(session, "stacked")
    first, _ = trainer.train()
    newest, _ = trainer.train()
    failed = trainer.start()
    finish_experiment(session, failed.id, "failed")
    found = find()
    assert found is not None
    assert found.id == newest.id != first.id
    assert find(seed=1) is None
    assert find(config_sha256=config_sha256({})) is None
    assert find(split_id=trainer.splits["efermi"]) is None
    assert find(status="running") == killed


def test_split_and_target_must_agree(session: Session, trainer: Trainer) -> None:
    with pytest.raises(Exception, match="fk_experiments_split_id_target"), session.begin_nested():
        trainer.start(split_id=trainer.splits["efermi"])


def test_version_without_weights_is_discarded(trainer: Trainer) -> None:
    version = trainer.version(trainer.start(), artifact=None, phase="fit")
    assert version.status == "discarded"


# -------------------------------------------------------------------------------- MODEL


def test_default_is_the_newest_refit_in_its_last_phase(session: Session, trainer: Trainer) -> None:
    trainer.train()
    experiment = trainer.start()
    trainer.version(experiment, fold=0, phase="finetune")
    refit = trainer.version(experiment, phase="finetune")
    trainer.version(experiment, phase="readout")
    finish_experiment(session, experiment)
    for name in ("stacked", "stacked:k_vrh", "stacked@latest", "stacked:k_vrh@2"):
        [found] = resolve_model(session, name)
        assert found.model_version.id == refit.id
        assert found.name == "stacked:k_vrh@2"
    assert resolve_model(session, "stacked@1")[0].experiment.version == 1


def test_without_a_target_there_is_one_model_for_each_target(session: Session, trainer: Trainer) -> None:
    for target in reversed(TARGETS):
        trainer.train(target=target)
    trainer.train()
    assert [m.experiment.target for m in resolve_model(session, "stacked")] == list(TARGETS)
    assert [m.name for m in resolve_model(session, "stacked@2")] == ["stacked:k_vrh@2"]


def test_aliases_are_set_and_moved(session: Session, trainer: Trainer) -> None:
    for _ in range(2):
        trainer.train()
    [first] = resolve_model(session, "stacked@1")
    set_alias(session, first, "best")
    assert resolve_model(session, "stacked@best") == [first]
    [second] = resolve_model(session, "stacked")
    set_alias(session, second, "best")
    assert resolve_model(session, "stacked:k_vrh@best") == [second]
    for alias in ("latest", "3", "Best", ""):
        with pytest.raises(ConfigurationError, match="cannot be an alias"):
            set_alias(session, first, alias)


def test_missing_models(session: Session, trainer: Trainer) -> None:
    with pytest.raises(NotFoundError, match="`ecdreg train` makes models"):
        resolve_model(session, "stacked")
    trainer.train()
    set_alias(session, resolve_model(session, "stacked")[0], "best")
    for name in ("image", "stacked:efermi", "stacked@7", "stacked@99999999999999", "stacked@production"):
        with pytest.raises(NotFoundError, match=r"there are: stacked:k_vrh@1, stacked:k_vrh@best"):
            resolve_model(session, name)
    for name in ("", "stacked@", "stacked:", "a:b:c", "STACKED", "stacked@1@2", "x; DROP TABLE experiments"):
        with pytest.raises(ConfigurationError, match="is not the name of a model"):
            resolve_model(session, name)
    with pytest.raises(UnknownNameError, match="did you mean 'k_vrh'"):
        resolve_model(session, "stacked:k_vhr")


# -------------------------------------------------------- curves, metrics and predictions


def test_learning_curve(session: Session, trainer: Trainer) -> None:
    _, refit = trainer.train()
    write_epochs(session, refit, [EpochRow(1, 1.0, 1.1, 0.5), EpochRow(2, 0.8, None, 0.5)])
    losses = session.execute(select(Epoch.epoch, Epoch.train_loss, Epoch.stop_loss).order_by(Epoch.epoch)).all()
    assert [tuple(row) for row in losses] == [(1, 1.0, 1.1), (2, 0.8, None)]
    with pytest.raises(ModelError, match="loss of epoch 3 is not finite"):
        write_epochs(session, refit, [EpochRow(3, float("nan"), 1.0, 0.5)])


def test_metrics(session: Session, trainer: Trainer) -> None:
    _, refit = trainer.train()
    write_metrics(session, refit.id, subset="holdout", values={"r2": 0.9, "rmse": 12.0, "mae": 9.0}, n=30)
    assert session.scalar(select(func.count()).select_from(Metric)) == 3
    with pytest.raises(ModelError, match="no metric 'accuracy'"):
        write_metrics(session, refit, subset="train", values={"accuracy": 1.0}, n=30)
    with pytest.raises(ModelError, match="r2 of the subset train is nan over 1 rows"):
        write_metrics(session, refit, subset="train", values={"r2": float("nan")}, n=1)


def _stored(session: Session) -> dict[int, float]:
    session.expire_all()
    return {row.revision_id: row.value for row in session.scalars(select(Prediction))}


def test_predictions_in_the_split_are_written_once(session: Session, trainer: Trainer, revisions: list[int]) -> None:
    _, refit = trainer.train()
    write_predictions(session, refit, revisions[:2], np.array([1.0, 2.0]), subset="holdout", spread=[0.1, 0.2])
    for subset in ("holdout", "none"):
        with pytest.raises(ModelError, match=f"first: revision {revisions[1]}"):
            write_predictions(session, refit, revisions[1:], [9.0, 3.0], subset=subset)
    assert _stored(session)[revisions[1]] == 2.0


def test_predictions_outside_the_split_can_be_replaced(
    session: Session, trainer: Trainer, revisions: list[int]
) -> None:
    _, refit = trainer.train()
    for shift in (0.0, 1.0):
        values = np.arange(3) + shift
        write_predictions(
            session,
            refit,
            revisions,
            values,
            subset="none",
            intervals=IntervalColumns(lower=values - 1, upper=values + 1),
        )
    assert _stored(session) == dict(zip(revisions, [1.0, 2.0, 3.0], strict=True))


def test_invalid_predictions_are_refused(session: Session, trainer: Trainer, revisions: list[int]) -> None:
    _, refit = trainer.train()
    with pytest.raises(ModelError, match="not finite"):
        write_predictions(session, refit, revisions, [1.0, np.nan, 2.0], subset="none")
    with pytest.raises(ModelError, match="shape"):
        write_predictions(session, refit, revisions, [1.0], subset="none")
    with pytest.raises(Exception, match="ck_predictions_spread"), session.begin_nested():
        write_predictions(session, refit, revisions, [1.0, 1.0, 1.0], subset="none", spread=[-1.0, 0.0, 0.0])
