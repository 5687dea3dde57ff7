"""Experiment: folds and phases on the cross-validated rows of a split, then a refit on all of them.

Each fold starts from fresh weights, is fitted to the other folds except the inner rows of early stopping, and is scored
on its own rows. The refit trains the median number of the folds' best epochs, and it alone predicts the holdout, once.
Every fold is one transaction: an interrupted experiment leaves whole folds, and the same call trains those that are
missing.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.database import session_scope
from registry.errors import ConfigurationError
from registry.model_store import (
    EpochRow,
    add_model_version,
    config_sha256,
    find_experiment,
    finish_experiment,
    write_epochs,
    write_metrics,
    write_predictions,
)
from registry.models import CrystalRevision, Experiment, ModelVersion
from train.config.config import TrainConfig
from train.config.schema import BaselineConfig
from train.config.version1 import to_version_1
from train.experiments.context import ExperimentContext
from train.experiments.folds import FoldTrainer
from train.experiments.locks import begin_run, run_key, run_lock
from train.experiments.publish import publish_encoder, update_best, update_default_encoder
from train.experiments.results import ExperimentResult, read_result
from train.experiments.rows import SplitRows, load_rows
from train.experiments.towers import StoredTowers
from train.features.batch import Batch
from train.features.cache import described
from train.features.inputs import ModelInputs
from train.featurizers.fingerprint import FINGERPRINT
from train.modalities import MODALITIES
from train.modalities.image import ImageColumn
from train.models import metrics
from train.models.fitted import FittedModel, RestoreContext
from train.models.fitting import restore_model
from train.models.network_fitting import FittedNetwork
from train.models.optimization import EpochRecord
from train.prediction.intervals import keep_intervals

__all__ = ["run_experiment", "single_thread"]

_log = logging.getLogger("train")


def run_experiment(
    context: ExperimentContext,
    config: TrainConfig,
    *,
    split: str,
    seed: int = 0,
    name: str | None = None,
    again: bool = False,
    baselines: bool = True,
) -> ExperimentResult:
    """Train a model on a split, after the baselines and, for a stack, its towers.

    Parameters
    ----------
    context
        The registry, the folders and the caches.
    config
        Configuration of the model.
    split
        Name of a split for the target of the configuration.
    seed
        Seed of weights, order, dropout and the rows of early stopping.
    name
        Name of the model; None: its kind.
    again
        Train a new version even if the same one is finished.
    baselines
        Whether missing baselines of the same split and seed are trained too.

    Raises
    ------
    NotFoundError
        If there is no such split, or no image of the recipe.
    SplitError
        If the split has crystals without the inputs, or is too small.
    ModelError
        If the same model is being trained by another process, or the loss is not finite.
    """
    started = time.perf_counter()
    _check(config)
    others = [*(_baselines(config) if baselines and not config.is_baseline else []), *_towers(config)]
    needed = [run_experiment(context, other, split=split, seed=seed, baselines=False) for other in others]
    name = name or config.kind
    with Session(context.engine) as session:
        rows = load_rows(session, split, target=config.target, inputs=config.inputs, auxiliary=config.auxiliary)
    inputs = _inputs(context, config, rows)
    checksums = _input_checksums(inputs, rows)
    stored = {**config.to_dict(), "inputs": checksums}
    identity: dict[str, Any] = {
        "name": name,
        "target": config.target,
        "config_sha256": config_sha256(stored),
        "seed": seed,
        "split_id": rows.split_id,
    }
    with run_lock(context.engine, name, config.target, run=run_key(identity)):
        with session_scope(context.engine) as session:
            finished = None if again else _finished(session, config, identity, checksums)
            if finished is not None:
                _log.info("%s:%s is finished as version %d", name, config.target, finished.version)
                return read_result(session, finished, "unchanged", started, needed)
            experiment, resumed = begin_run(session, config, stored, identity, again=again)
            experiment_id = experiment.id
            _log.info(
                "%s experiment %d, %s:%s@%d, seed %d, on split %r: %d cross-validated rows, %d holdout rows",
                "resuming" if resumed else "beginning",
                *(experiment_id, name, config.target, experiment.version, seed, split),
                *(len(rows.cv), len(rows.holdout)),
            )
        towers = {result.name: result.experiment_id for result in needed if result.name in config.modalities}
        try:
            with single_thread(config):
                _Run(context, inputs, rows, seed, experiment_id, towers).all(f"{name} · {config.target}")
        except BaseException as error:
            status = "failed" if isinstance(error, Exception) else "interrupted"
            _log.info("experiment %d %s", experiment_id, "failed" if status == "failed" else "was interrupted")
            with session_scope(context.engine) as session:
                finish_experiment(session, experiment_id, status)
            raise
    with Session(context.engine) as session:
        trained = session.get_one(Experiment, experiment_id)
        return read_result(session, trained, "resumed" if resumed else "trained", started, needed)


@contextmanager
def single_thread(config: TrainConfig) -> Iterator[None]:
    """One thread of PyTorch for networks on stored features: their matrices are too small to be divided."""
    import torch

    before = torch.get_num_threads()
    if not config.finetune_enabled:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ---------------------------------------------------------------------- what is trained


def _check(config: TrainConfig) -> None:
    density = config.inputs.get("density")
    if density is not None and density.backbone == FINGERPRINT:
        raise ConfigurationError(
            f"the density features are {FINGERPRINT!r}, which contain the composition too and are for searches; take"
            " density-statistics, and a composition tower beside it"
        )


def _baselines(config: TrainConfig) -> list[TrainConfig]:
    return [BaselineConfig(target=config.target, name="mean"), BaselineConfig(target=config.target, name="magpie")]


def _towers(config: TrainConfig) -> list[TrainConfig]:
    return [config.tower_config(name) for name in config.modalities] if config.is_stack else []


def _finished(
    session: Session, config: TrainConfig, identity: Mapping[str, Any], checksums: Mapping[str, Any]
) -> Experiment | None:
    """The finished experiment of this description, also one that release 0.1.0 trained."""
    found = find_experiment(session, **identity)
    if found is not None or (flat := to_version_1(config)) is None:
        return found
    return find_experiment(session, **{**identity, "config_sha256": config_sha256({**flat, "inputs": checksums})})


def _inputs(context: ExperimentContext, config: TrainConfig, rows: SplitRows) -> ModelInputs:
    """Inputs of the current revision of every crystal, and of the revisions of the split."""
    with Session(context.engine) as session:
        current = session.scalars(select(CrystalRevision.id).where(CrystalRevision.is_current)).all()
    ids = sorted({*current, *rows.cv.revision_ids.tolist(), *rows.holdout.revision_ids.tolist()})
    images = rows.cv.columns.get("image")
    recipe = images.recipe_sha256 if isinstance(images, ImageColumn) else None
    return context.inputs(config, ids, recipe_sha256=recipe)


_LISTED = ("image", "text", "density")
"""Modalities with a place in the checksum of the rows also where a model does not read them, as in release 0.1.0."""


def _input_checksums(inputs: ModelInputs, rows: SplitRows) -> dict[str, Any]:
    """Checksums of the inputs of a configuration: another recipe, backbone, text or value is another experiment."""
    cv, columns = rows.cv, rows.cv.columns
    absent = [None] * len(cv)
    listed = {**dict.fromkeys(_LISTED, absent), **{name: column.identity for name, column in columns.items()}}
    listed.pop("composition", None)  # the formulas, which come first in any case
    # JSON does not have NaN.
    targets = [[value if np.isfinite(value) else None for value in row] for row in rows.targets.reshape(len(cv), -1)]
    images = columns.get("image")
    return {
        "recipe_sha256": images.recipe_sha256 if isinstance(images, ImageColumn) else None,
        "encoders": {name: table.identity_sha256 for name, table in inputs.tables.items()},
        "rows_sha256": json_sha256(
            [cv.revision_ids.tolist(), cv.folds.tolist(), targets, cv.formulas, *listed.values()]
        ),
    }


# ------------------------------------------------------------------------------- one run


@dataclass(frozen=True)
class _Stage:
    """One phase of one fold, or of the refit, ready to be written."""

    phase: str
    best_epoch: int | None
    epochs: tuple[EpochRecord, ...]
    scalers: dict[str, Any]
    scores: dict[str, tuple[dict[str, float], int]]
    """By subset: scores and the number of rows."""


class _Run:
    """One experiment in progress."""

    def __init__(
        self,
        context: ExperimentContext,
        inputs: ModelInputs,
        rows: SplitRows,
        seed: int,
        experiment_id: int,
        towers: Mapping[str, int],
    ) -> None:
        self.context = context
        self.config = inputs.config
        self.inputs = inputs
        self.rows = rows
        self.experiment_id = experiment_id
        self.backbones = inputs.backbones
        self.trainer = FoldTrainer(
            inputs.config,
            inputs.batch(rows.cv.revision_ids),
            rows.cv,
            rows.targets,
            seed,
            backbones=self.backbones,
            towers=StoredTowers(context, inputs.config, towers, rows=rows.cv, backbones=self.backbones),
            on_epoch=self._report_epoch,
        )
        self._where = ""

    def all(self, label: str) -> None:
        """Every fold that is missing, then the refit."""
        done = self._folds_done()
        folds = [fold for fold in self.rows.folds if fold not in done]
        progress = self.context.progress
        progress.begin(label, len(folds) + 1)
        try:
            for fold in folds:
                self._where = f"fold {fold}"
                note = self._fold(fold)
                _log.debug("experiment %d, %s", self.experiment_id, note)
                progress.advance(1, note)
            self._where = "refit"
            self._refit()
            progress.advance(1, "refit")
        finally:
            progress.end()

    def _fold(self, fold: int) -> str:
        rows, trainer = self.rows.cv, self.trainer
        fitted, scored = trainer.fitted(fold), trainer.scored(fold)
        batches = {"train": trainer.batch.take(fitted), "validation": trainer.batch.take(scored)}
        truth = {"train": rows.values[fitted], "validation": rows.values[scored]}
        stages: list[_Stage] = []
        model: FittedModel | None = None
        predicted: dict[str, NDArray[np.float64]] = {}
        for model in trainer.fit(fold):
            # A model that is only aligned does not predict the target yet.
            predicted = {s: model.predict(batch) for s, batch in batches.items() if model.phase != "align"}
            stages.append(_stage(model, {s: (_scores(truth[s], p), len(p)) for s, p in predicted.items()}))
        assert model is not None
        with session_scope(self.context.engine) as session:
            version = self._write(session, model, stages, fold=fold, n_train=len(fitted))
            write_predictions(session, version, rows.revision_ids[scored], predicted["validation"], subset="validation")
        last = stages[-1].scores["validation"][0]
        r2 = f"R2 {last['r2']:.3f}, " if "r2" in last else ""
        return f"fold {fold}: {r2}RMSE {last['rmse']:.3g}"

    def _refit(self) -> None:
        rows, batch = self.rows.cv, self.trainer.batch
        stages: list[_Stage] = []
        model: FittedModel | None = None
        for model in self.trainer.fit(None, epochs=self._median_epochs()):
            aligned = model.phase == "align"
            scores = {} if aligned else {"train": (_scores(rows.values, model.predict(batch)), len(rows))}
            stages.append(_stage(model, scores))
        assert model is not None
        holdout = self.rows.holdout
        # From here on nothing is fitted; this is the one place that reads the holdout.
        held_out = self.inputs.batch(holdout.revision_ids)
        predicted = model.predict(held_out)
        if len(holdout):
            stages[-1].scores["holdout"] = (_scores(holdout.values, predicted), len(holdout))
        by_fold = self._fold_predictions(held_out)
        spread = np.std(list(by_fold.values()), axis=0, ddof=1) if len(by_fold) > 1 and len(holdout) else None
        with session_scope(self.context.engine) as session:
            version = self._write(session, model, stages, fold=None, n_train=len(rows))
            if len(holdout):
                write_predictions(session, version, holdout.revision_ids, predicted, subset="holdout", spread=spread)
            experiment = session.get_one(Experiment, self.experiment_id)
            keep_intervals(
                session,
                experiment,
                version.phase,
                self.inputs.frozen,
                holdout=holdout.revision_ids,
                fold_predictions=by_fold,
                predicted=predicted,
            )
            if isinstance(model, FittedNetwork):
                publish_encoder(
                    session,
                    experiment,
                    version=version,
                    model=model,
                    inputs=self.inputs,
                    preprocessing=self._trained_on(),
                )
            finish_experiment(session, experiment)
            session.flush()
            update_best(session, experiment.name, experiment.target)
            update_default_encoder(session)

    def _report_epoch(self, phase: str, record: EpochRecord) -> None:
        if record.epoch % 10 == 0:
            self.context.progress.advance(0, f"{self._where}, {phase}, epoch {record.epoch}")

    def _trained_on(self) -> dict[str, Any]:
        """Description of the training data; the model refuses to predict from anything else."""
        trained_on: dict[str, Any] = {"target": self.rows.target, "unit": self.rows.unit, "split": self.rows.split}
        for name, features in self.config.inputs.items():
            trained_on |= MODALITIES[name].describe(features, self.rows.cv.columns[name])
        trained_on["backbones"] = {name: described(backbone) for name, backbone in self.backbones.items()}
        return trained_on

    def _write(
        self, session: Session, model: FittedModel, stages: list[_Stage], *, fold: int | None, n_train: int
    ) -> ModelVersion:
        """Write all phases; only the last keeps its weights, and its row is returned."""
        artifact = self.context.store.put(model.to_bytes(extra=self._trained_on()))
        version: ModelVersion | None = None
        for stage in stages:
            version = add_model_version(
                session,
                self.experiment_id,
                fold=fold,
                phase=stage.phase,
                n_train=n_train,
                scalers=stage.scalers,
                artifact=artifact if stage is stages[-1] else None,
                best_epoch=stage.best_epoch,
            )
            write_epochs(
                session, version, [EpochRow(e.epoch, e.train_loss, e.stop_loss, e.seconds) for e in stage.epochs]
            )
            for subset, (values, n) in stage.scores.items():
                write_metrics(session, version, subset=subset, values=values, n=n)
        assert version is not None
        return version

    def _folds_done(self) -> set[int]:
        with Session(self.context.engine) as session:
            return {
                int(fold)
                for fold in session.scalars(
                    select(ModelVersion.fold).where(
                        ModelVersion.experiment_id == self.experiment_id,
                        ModelVersion.fold.is_not(None),
                        ModelVersion.status == "ready",
                    )
                )
                if fold is not None
            }

    def _median_epochs(self) -> dict[str, int]:
        with Session(self.context.engine) as session:
            found = session.execute(
                select(ModelVersion.phase, ModelVersion.best_epoch).where(
                    ModelVersion.experiment_id == self.experiment_id,
                    ModelVersion.fold.is_not(None),
                    ModelVersion.best_epoch.is_not(None),
                )
            )
            by_phase: dict[str, list[int]] = {phase: [] for phase in self.config.phases}
            for phase, best in found:
                by_phase[phase].append(best or 1)
        return {phase: max(1, round(statistics.median(best))) for phase, best in by_phase.items() if best}

    def _fold_predictions(self, batch: Batch) -> dict[int, NDArray[np.float64]]:
        """Predictions of the model of each fold for N crystals, (N,) in the unit of the target."""
        if not len(batch):
            return {}
        with Session(self.context.engine) as session:
            versions = session.execute(
                select(ModelVersion.fold, ModelVersion.artifact_uri, ModelVersion.artifact_sha256)
                .where(
                    ModelVersion.experiment_id == self.experiment_id,
                    ModelVersion.fold.is_not(None),
                    ModelVersion.status == "ready",
                )
                .order_by(ModelVersion.fold)
            ).all()
        restore = RestoreContext(self.backbones)
        store = self.context.store
        return {
            int(fold or 0): restore_model(self.config, store.read(uri or "", sha256 or ""), restore).predict(batch)
            for fold, uri, sha256 in versions
        }


def _stage(model: FittedModel, scores: dict[str, tuple[dict[str, float], int]]) -> _Stage:
    result = model.result
    return _Stage(
        phase=model.phase,
        best_epoch=None if result is None else result.best_epoch,
        epochs=() if result is None else result.history,
        scalers=model.scalers(),
        scores=scores,
    )


def _scores(truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> dict[str, float]:
    if np.ptp(truth) == 0:  # R2 is not defined on rows that do not differ, a single one for instance
        return {"rmse": metrics.rmse(truth, predicted), "mae": metrics.mae(truth, predicted)}
    return metrics.scores(truth, predicted)
