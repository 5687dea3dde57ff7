"""Experiments, model versions, and what they say of crystals; weights lie in files.

A model is named ``NAME[:TARGET][@ALIAS | @N | @latest]``: ``stacked``, ``stacked:k_vrh``,
``stacked:k_vrh@best``, ``image@3``. Without ``@`` the newest finished version is meant. What answers is
the refit on all of cv, in its last phase.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sqlalchemy import bindparam, case, func, insert, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.errors import ConfigurationError, ModelError, NotFoundError
from registry.files.artifacts import ArtifactStore, StoredArtifact
from registry.models import Epoch, Experiment, Metric, ModelAlias, ModelVersion, Prediction
from registry.properties import TARGETS, property_named
from registry.provenance import code_version

__all__ = [
    "METRICS",
    "ArtifactStore",
    "EpochRow",
    "ResolvedModel",
    "StoredArtifact",
    "add_model_version",
    "check_model_name",
    "config_sha256",
    "find_experiment",
    "finish_experiment",
    "resolve_model",
    "set_alias",
    "start_experiment",
    "write_epochs",
    "write_intervals",
    "write_metrics",
    "write_predictions",
]

METRICS = ("r2", "rmse", "mae")
"""Names of the scores: coefficient of determination, root mean square error, mean absolute error."""

_MODEL = re.compile(r"(?P<name>[a-z0-9][a-z0-9_.-]*)(:(?P<target>[^:@]+))?(@(?P<pick>[a-z0-9_.-]+))?")
_ALIAS = re.compile(r"[a-z][a-z0-9_.-]*")
_CHUNK = 10_000


@dataclass(frozen=True)
class EpochRow:
    """One point of a learning curve."""

    epoch: int
    """From 1."""
    train_loss: float
    """Mean squared error of the standardised target."""
    stop_loss: float | None
    """The same on the rows that early stopping looks at; None in the refit."""
    seconds: float


@dataclass(frozen=True)
class ResolvedModel:
    """A model that can answer: an experiment and its refit in the last phase."""

    experiment: Experiment
    model_version: ModelVersion

    @property
    def name(self) -> str:
        """``name:target@version``, which names this very model."""
        return f"{self.experiment.name}:{self.experiment.target}@{self.experiment.version}"


def config_sha256(config: Mapping[str, Any]) -> str:
    """Checksum of a config (JSON values) without its ``seed``: runs of one config share it."""
    return json_sha256({key: value for key, value in config.items() if key != "seed"})


def check_model_name(name: str) -> None:
    """Refuse what cannot be the name of a model.

    Raises
    ------
    ConfigurationError
        If the name is not of lower case letters, digits, ``_``, ``.`` and ``-``, or begins with one of the last three.
    """
    if not re.fullmatch("[a-z0-9][a-z0-9_.-]*", name):
        raise ConfigurationError(f"a model cannot be called {name!r}; use lower case letters, digits and _ . -")


def start_experiment(
    session: Session, *, name: str, target: str, kind: str, config: Mapping[str, Any], seed: int, split_id: int
) -> Experiment:
    """Begin an experiment, as the next version of its name and target.

    Parameters
    ----------
    name
        What the user calls the model: lower case letters, digits, ``_``, ``.`` and ``-``.
    target
        Property that is learnt; that of the split.
    kind
        Network or baseline that is trained.
    config
        Everything that shapes the result; JSON values.
    seed
        Of weights and order.
    split_id
        The frozen split.

    Raises
    ------
    ConfigurationError
        If the name cannot be one.
    """
    check_model_name(name)
    # Two trainings that start at once get two versions.
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
    """The newest experiment of this very description, or None.

    Parameters
    ----------
    name, target, seed, split_id
        As in :func:`start_experiment`.
    config_sha256
        Of the config, as :func:`config_sha256` gives it.
    status
        Only experiments of this status. One that its process left ``running`` when it died is not ``finished``.
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
    """Add fitted weights to an experiment.

    Parameters
    ----------
    experiment
        The experiment, or its id.
    fold
        The fold that scores it; None for the refit on all of cv.
    phase
        align, readout or finetune; fit for a baseline.
    n_train
        Rows that were fitted to.
    scalers
        What was fitted beside the weights; JSON values.
    artifact
        Where the weights lie; None where they were discarded.
    best_epoch
        Epoch whose weights were kept, from 1.
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


def write_epochs(session: Session, model_version: ModelVersion | int, epochs: Iterable[EpochRow]) -> None:
    """Write the learning curve of a model version.

    Raises
    ------
    ModelError
        If a loss is not finite: the training diverged.
    """
    version_id = _id(model_version)
    rows = [{"model_version_id": version_id, **vars(epoch)} for epoch in epochs]
    for row in rows:
        if not np.isfinite([row["train_loss"], row["stop_loss"] or 0.0]).all():
            raise ModelError(f"the loss of epoch {row['epoch']} is not finite; lower the learning rate")
    if rows:
        session.execute(insert(Epoch), rows)


def write_metrics(
    session: Session, model_version: ModelVersion | int, *, subset: str, values: Mapping[str, float], n: int
) -> None:
    """Write the scores of a model version on one subset.

    Parameters
    ----------
    subset
        train, validation or holdout.
    values
        By name: r2 [1], rmse and mae [unit of the target].
    n
        Rows that were scored.

    Raises
    ------
    ModelError
        If a score has another name, or is not finite.
    """
    for name, value in values.items():
        if name not in METRICS:
            raise ModelError(f"no score {name!r}; there are {', '.join(METRICS)}")
        if not np.isfinite(value):
            raise ModelError(f"{name} of the subset {subset} is {value} over {n} rows; a score needs differing values")
    rows = [
        {"model_version_id": _id(model_version), "subset": subset, "name": name, "value": float(value), "n": n}
        for name, value in values.items()
    ]
    if rows:
        session.execute(insert(Metric), rows)


def write_predictions(
    session: Session,
    model_version: ModelVersion | int,
    revision_ids: Sequence[int] | NDArray[np.int64],
    values: ArrayLike,
    *,
    subset: str,
    spread: ArrayLike | None = None,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    out_of_domain: Sequence[bool] | NDArray[np.bool_] | None = None,
) -> None:
    """Write what a model version says of N crystals.

    Predictions inside the split (train, validation, holdout) are written once. Those of other
    crystals (subset ``none``) may be made again.

    Parameters
    ----------
    revision_ids
        (N,)
    values
        (N,), unit of the target.
    subset
        train, validation, holdout or none.
    spread
        (N,), standard deviation over the models of the folds, unit of the target.
    lower, upper
        (N,), 90 % interval, unit of the target.
    out_of_domain
        (N,), whether a crystal lies outside what the model was fitted to; None where that is not known.

    Raises
    ------
    ModelError
        If a value is not finite, or if a prediction inside the split is there already.
    """
    columns = {"value": values, "spread": spread, "lower": lower, "upper": upper}
    given = {name: np.asarray(v, dtype=np.float64) for name, v in columns.items() if v is not None}
    for name, array in given.items():
        if array.shape != (len(revision_ids),) or not np.isfinite(array).all():
            raise ModelError(
                f"{name}s of {len(revision_ids)} predictions have shape {array.shape} or are not finite; the model"
                " cannot be used on these crystals"
            )
    version_id = _id(model_version)
    lists = {name: array.tolist() for name, array in given.items()}
    rows = [
        {"model_version_id": version_id, "revision_id": int(revision_id), "subset": subset}
        | {name: lists[name][i] if name in lists else None for name in columns}
        | {"out_of_domain": None if out_of_domain is None else bool(out_of_domain[i])}
        for i, revision_id in enumerate(revision_ids)
    ]
    given_row = postgresql.insert(Prediction)
    upsert = given_row.on_conflict_do_update(
        index_elements=[Prediction.model_version_id, Prediction.revision_id],
        set_={name: given_row.excluded[name] for name in (*columns, "out_of_domain")} | {"created_at": func.now()},
        where=(Prediction.subset == "none") & (given_row.excluded.subset == "none"),
    ).returning(Prediction.revision_id)
    written: set[int] = set()
    for start in range(0, len(rows), _CHUNK):
        written.update(session.scalars(upsert, rows[start : start + _CHUNK]))
    if refused := [row["revision_id"] for row in rows if row["revision_id"] not in written]:
        raise ModelError(
            f"{len(refused)} crystals (first: revision {refused[0]}) have a prediction of model version {version_id}"
            " inside its split already, which is made once; train a new version"
        )


def write_intervals(
    session: Session,
    experiment: Experiment | int,
    revision_ids: Sequence[int] | NDArray[np.int64],
    *,
    phase: str,
    lower: ArrayLike,
    upper: ArrayLike,
    out_of_domain: Sequence[bool] | NDArray[np.bool_] | None,
) -> int:
    """Put intervals beside predictions inside the split (validation and holdout) that were made without them.

    The predictions themselves stay. Intervals that are there are replaced: they follow from the rows of the registry.

    Parameters
    ----------
    experiment
        The experiment, or its id.
    revision_ids
        (N,)
    phase
        Phase of the model versions.
    lower, upper
        (N,), 90 % interval, unit of the target.
    out_of_domain
        (N,), or None for a model that has no domain.

    Returns
    -------
    int
        Predictions that were there.
    """
    low, high = np.asarray(lower, dtype=np.float64).tolist(), np.asarray(upper, dtype=np.float64).tolist()
    versions = select(ModelVersion.id).where(ModelVersion.experiment_id == _id(experiment), ModelVersion.phase == phase)
    statement = (
        update(Prediction)
        .where(
            Prediction.model_version_id.in_(versions),
            Prediction.revision_id == bindparam("rid"),
            Prediction.subset.in_(("validation", "holdout")),
        )
        .values(lower=bindparam("low"), upper=bindparam("high"), out_of_domain=bindparam("out"))
    )
    rows = [
        {
            "rid": int(rid),
            "low": low[i],
            "high": high[i],
            "out": None if out_of_domain is None else bool(out_of_domain[i]),
        }
        for i, rid in enumerate(revision_ids)
    ]
    return sum(session.connection().execute(statement, row).rowcount for row in rows)


def resolve_model(session: Session, model: str) -> list[ResolvedModel]:
    """The models that ``NAME[:TARGET][@ALIAS | @N | @latest]`` names.

    Returns
    -------
    list of ResolvedModel
        One; without a target one for each target that has such a model, in the usual order.

    Raises
    ------
    ConfigurationError
        If it is no such name.
    UnknownNameError
        If there is no such target.
    NotFoundError
        If there is no such model with weights; the message lists what there is.
    """
    match = _MODEL.fullmatch(model)
    if match is None:
        raise ConfigurationError(f"{model!r} names no model; write NAME, NAME:TARGET, NAME@ALIAS or NAME@VERSION")
    name, target, pick = match["name"], match["target"], match["pick"] or "latest"
    if target is not None:
        property_named(target)
    phase = case({"fit": 0, "align": 0, "readout": 1, "finetune": 2}, value=ModelVersion.phase)
    query = (
        select(Experiment, ModelVersion)
        .join(ModelVersion, ModelVersion.experiment_id == Experiment.id)
        .where(
            Experiment.name == name,
            Experiment.status == "finished",
            ModelVersion.fold.is_(None),
            ModelVersion.status == "ready",
        )
        .order_by(Experiment.version.desc(), phase.desc())
    )
    if target is not None:
        query = query.where(Experiment.target == target)
    if pick.isdecimal():
        query = query.where(Experiment.version == int(pick[:9]))
    elif pick != "latest":
        query = query.join(ModelAlias, ModelAlias.model_version_id == ModelVersion.id).where(ModelAlias.alias == pick)
    found: dict[str, ResolvedModel] = {}
    for experiment, version in session.execute(query):
        found.setdefault(experiment.target, ResolvedModel(experiment, version))
    if not found:
        raise NotFoundError(f"no model {model!r}; {_known_models(session)}")
    order = {known: i for i, known in enumerate(TARGETS)}
    return sorted(found.values(), key=lambda m: (order.get(m.experiment.target, len(order)), m.experiment.target))


def set_alias(session: Session, model: ResolvedModel, alias: str) -> None:
    """Let an alias, ``best`` for instance, point to a model; it leaves the one it pointed to.

    Raises
    ------
    ConfigurationError
        If it cannot be an alias.
    """
    if alias == "latest" or not _ALIAS.fullmatch(alias):
        raise ConfigurationError(
            f"{alias!r} cannot be an alias; start with a lower case letter, and `latest` always means the newest"
        )
    experiment = model.experiment
    points_to = {"experiment_id": experiment.id, "model_version_id": model.model_version.id}
    session.execute(
        postgresql.insert(ModelAlias)
        .values(name=experiment.name, target=experiment.target, alias=alias, **points_to)
        .on_conflict_do_update(index_elements=[ModelAlias.name, ModelAlias.target, ModelAlias.alias], set_=points_to)
    )


def _known_models(session: Session) -> str:
    rows = session.execute(
        select(Experiment.name, Experiment.target, Experiment.version)
        .join(ModelVersion, ModelVersion.experiment_id == Experiment.id)
        .where(Experiment.status == "finished", ModelVersion.fold.is_(None), ModelVersion.status == "ready")
        .distinct()
        .order_by(Experiment.name, Experiment.target, Experiment.version.desc())
    )
    names = [f"{name}:{target}@{version}" for name, target, version in rows]
    names += session.scalars(
        select(ModelAlias.name + ":" + ModelAlias.target + "@" + ModelAlias.alias).order_by("name", "target", "alias")
    )
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"there are: {shown}" if names else "`ecdreg train` makes models"


def _id(row: Experiment | ModelVersion | int) -> int:
    return row if isinstance(row, int) else row.id
