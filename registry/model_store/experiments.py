"""Experiments and model versions: start, end, lookup, and fitted weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.files.artifacts import StoredArtifact
from registry.model_store.names import check_model_name
from registry.models import Experiment, ModelVersion
from registry.provenance import code_version

__all__ = ["add_model_version", "config_sha256", "find_experiment", "finish_experiment", "start_experiment"]


def config_sha256(config: Mapping[str, Any]) -> str:
    """Checksum of a configuration (JSON values) without its ``seed``, so that runs with different seeds share it."""
    return json_sha256({key: value for key, value in config.items() if key != "seed"})


def start_experiment(
    session: Session, *, name: str, target: str, kind: str, config: Mapping[str, Any], seed: int, split_id: int
) -> Experiment:
    """Start an experiment, as the next version of its name and target.

    Parameters
    ----------
    name
        Name of the model: lower case letters, digits, ``_``, ``.`` and ``-``.
    target
        The property that the model predicts, the target of the split.
    kind
        Kind of the model.
    config
        All settings that affect the result; JSON values.
    seed
        Seed of the weights and of the order of the rows.
    split_id
        The frozen split.

    Raises
    ------
    ConfigurationError
        If the name is not a valid name of a model.
    """
    check_model_name(name)
    # Two experiments that start at the same time get two versions.
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(f"{name}:{target}", 0))))
    newest = session.scalar(
        select(func.max(Experiment.version)).where(Experiment.name == name, Experiment.target == target)
    )
    experiment = Experiment(
        name=name,
        target=target,
        version=(newest or 0) + 1,
        kind=kind,
        config=dict(config),
        config_sha256=config_sha256(config),
        seed=seed,
        split_id=split_id,
        code_version=code_version(),
    )
    session.add(experiment)
    session.flush()
    return experiment


def finish_experiment(session: Session, experiment: Experiment | int, status: str = "finished") -> None:
    """End an experiment.

    Parameters
    ----------
    experiment
        The experiment, or its id.
    status
        finished, interrupted or failed.
    """
    session.execute(
        update(Experiment)
        .where(Experiment.id == _id(experiment))
        .values(status=status, finished_at=func.clock_timestamp())
    )


def find_experiment(
    session: Session,
    *,
    name: str,
    target: str,
    config_sha256: str,
    seed: int,
    split_id: int,
    status: str = "finished",
) -> Experiment | None:
    """The newest experiment with these settings, or None.

    Parameters
    ----------
    name, target, seed, split_id
        As in :func:`start_experiment`.
    config_sha256
        Checksum of the configuration; see :func:`config_sha256`.
    status
        Status of the experiment. An experiment of a killed process stays ``running``.
    """
    return session.scalars(
        select(Experiment)
        .where(
            Experiment.name == name,
            Experiment.target == target,
            Experiment.config_sha256 == config_sha256,
            Experiment.seed == seed,
            Experiment.split_id == split_id,
            Experiment.status == status,
        )
        .order_by(Experiment.version.desc())
        .limit(1)
    ).one_or_none()


def add_model_version(
    session: Session,
    experiment: Experiment | int,
    *,
    fold: int | None,
    phase: str,
    n_train: int,
    scalers: Mapping[str, Any],
    artifact: StoredArtifact | None,
    best_epoch: int | None = None,
) -> ModelVersion:
    """Add a model version, with its fitted weights, to an experiment.

    Parameters
    ----------
    experiment
        The experiment, or its id.
    fold
        The fold that evaluates it; None for the refit on all cv rows.
    phase
        align, readout or finetune; fit for a baseline.
    n_train
        Number of training rows.
    scalers
        Fitted parameters in addition to the weights; JSON values.
    artifact
        The file of the weights; None if they were discarded.
    best_epoch
        Epoch of the weights, from 1.
    """
    version = ModelVersion(
        experiment_id=_id(experiment),
        fold=fold,
        phase=phase,
        n_train=n_train,
        best_epoch=best_epoch,
        scalers=dict(scalers),
        artifact_uri=artifact.uri if artifact else None,
        artifact_sha256=artifact.sha256 if artifact else None,
        status="ready" if artifact else "discarded",
    )
    session.add(version)
    session.flush()
    return version


def _id(experiment: Experiment | int) -> int:
    return experiment if isinstance(experiment, int) else experiment.id
