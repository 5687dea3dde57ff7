"""``ecdreg plot curves``: learning curves of networks, and the errors for models without epochs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Protocol

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from registry.database import session_scope
from registry.files.artifacts import ArtifactStore
from registry.model_store import EpochRow, add_model_version, finish_experiment, start_experiment, write_epochs
from tests.conftest import Invoke
from train.config.config import TrainConfig
from train.config.kinds import parse_config

JOINED = {"kind": "stacked", "target": "k_vrh", "stack_towers": ["image", "text"], "join": "gaussian-process"}


class WriteExperiment(Protocol):
    """Writes a finished experiment of a configuration, with the epochs of its folds if it has any."""

    def __call__(self, session: Session, config: TrainConfig, *, name: str, epochs: bool, seed: int = 0) -> None: ...


@pytest.fixture
def trained(engine: Engine, models: SimpleNamespace, home: Path) -> WriteExperiment:
    """Writes a finished experiment of a config, with the epochs of one fold if it has any."""
    store = ArtifactStore(home / "artifacts")

    def write(session: Session, config: TrainConfig, *, name: str, epochs: bool, seed: int = 0) -> None:
        run = start_experiment(
            session, name=name, target="k_vrh", kind=config.kind, config={**config.to_dict(), "inputs": {}}, seed=seed,
            split_id=models.split_id,
        )  # fmt: skip
        for fold in (0, None):
            version = add_model_version(
                session, run, fold=fold, phase="readout" if epochs else "fit", n_train=9, scalers={},
                artifact=store.put(f"{name}-{seed}-{fold}".encode()), best_epoch=1 if epochs else None,
            )  # fmt: skip
            if epochs:
                write_epochs(session, version, [EpochRow(1, 1.0, 1.1, 0.1), EpochRow(2, 0.5, 0.7, 0.1)])
        finish_experiment(session, run)

    return write


def test_a_joined_stack_names_its_network_towers(
    invoke: Invoke, engine: Engine, trained: WriteExperiment, tmp_path: Path
) -> None:
    config = parse_config(JOINED)
    out = tmp_path / "curves.png"
    with session_scope(engine) as session:
        trained(session, config, name="stacked", epochs=False)
    alone = invoke("plot", "curves", "stacked:k_vrh", "-o", out)
    assert alone.exit_code == 1
    assert alone.stderr == (
        "error: stacked:k_vrh@1 is joined by the regressor gaussian-process, which is fitted in one step and has no"
        " learning curve, nor has any of its towers\n"
    )
    with session_scope(engine) as session:
        trained(session, config.tower_config("text"), name="text", epochs=True)
        trained(session, config.tower_config("text"), name="text", epochs=True, seed=1)  # of another run
        trained(session, config.tower_config("image"), name="pictures", epochs=True)
    failed = invoke("plot", "curves", "stacked", "-o", out)
    assert failed.stderr.endswith("; those of its network towers: ecdreg plot curves pictures:k_vrh@1 text:k_vrh@1\n")
    assert len(failed.stderr.splitlines()) == 1
    assert not out.exists()
    assert invoke("plot", "curves", "pictures:k_vrh@1", "text:k_vrh@1", "-o", out).exit_code == 0
    assert out.stat().st_size > 10_000


def test_error_names_the_regressor_and_the_baseline(invoke: Invoke, engine: Engine, trained: WriteExperiment) -> None:
    with session_scope(engine) as session:
        tower = {"kind": "image", "target": "k_vrh", "image_regressor": "kernel"}
        trained(session, parse_config(tower), name="picture-statistics", epochs=False)
        trained(session, parse_config({"kind": "baseline-magpie", "target": "k_vrh"}), name="trees", epochs=False)
    failed = invoke("plot", "curves", "picture-statistics", "trees")
    assert failed.stderr == (
        "error: picture-statistics:k_vrh@1 is the regressor kernel, which is fitted in one step and has no learning"
        " curve; trees:k_vrh@1 is a baseline, which is fitted in one step and has no learning curve\n"
    )
