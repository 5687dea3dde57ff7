"""An experiment: folds times phases on the cross-validated rows, then a refit on all of them.

Each fold starts from fresh weights, is fitted on the other folds but for the inner rows that stopping looks
at, and is scored on its own rows. The refit runs as many epochs as the folds' median best ones, and it alone
predicts the holdout, once. Every fold is one transaction: an experiment that is cut off leaves whole folds,
and the same call goes on with those that are missing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.database import session_scope
from registry.errors import ConfigurationError
from registry.files.artifacts import ArtifactStore
from registry.files.grids import GridStore
from registry.jobs.progress import Progress, Silent
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
from registry.settings import Settings
from train.config.config import KINDS, TrainConfig
from train.experiments.locks import begin, held, run_key
from train.experiments.publish import publish_encoder, update_best, update_default_encoder
from train.experiments.results import ExperimentResult, read_result
from train.experiments.rows import Rows, SplitRows, inner_stop, load_rows
from train.experiments.towers import TrainedTowers
from train.features.cache import FeatureCache
from train.features.cache import described as identify
from train.features.fingerprint import FINGERPRINT
from train.features.inputs import ModelInputs
from train.models import metrics
from train.models.fitting import FittedModel, FittedNetwork, Shown, derived_seed, fit_phases, phases_of, restore
from train.models.optimization import EpochRecord
from train.prediction.intervals import keep_intervals

__all__ = ["ExperimentResult", "run_experiment"]


def run_experiment(
    engine: Engine,
    settings: Settings,
    config: TrainConfig,
    *,
    split: str,
    seed: int = 0,
    name: str | None = None,
    again: bool = False,
    baselines: bool = True,
    progress: Progress | None = None,
    cache: FeatureCache | None = None,
) -> ExperimentResult:
    """Train a model on a split, with what it needs beside it: the baselines, and for a stack its towers.

    Parameters
    ----------
    engine
        Committed to fold by fold.
    settings
        Where weights are kept.
    config
        What is trained.
    split
        Name of a split for the config's target.
    seed
        Of weights, order, dropout and the rows that stopping looks at.
    name
        What the model is called; its kind where none is given.
    again
        Train a new version although the same one is finished.
    baselines
        Train the baselines of the same split and seed too, where they are missing.
    progress
        Told of folds and epochs.
    cache
        Features and backbones that several experiments share.

    Raises
    ------
    NotFoundError
        If there is no such split or no image of the recipe.
    SplitError
        If the split holds crystals without the inputs, or is too small.
    ModelError
        If the same model is being trained by another process, or the loss is not finite.
    """
    started = time.perf_counter()
    if "density" in config.towers and config.density_backbone == FINGERPRINT:
        raise ConfigurationError(
            f"density_backbone is {FINGERPRINT!r}, which holds the composition too and is for searches; take"
            " density-statistics, and a composition tower beside it"
        )
    progress = progress or Silent()
    cache = cache or FeatureCache(
        engine, models=settings.models, progress=progress, grids=GridStore(settings.grids_url)
    )
    common: dict[str, Any] = {"split": split, "seed": seed, "baselines": False, "progress": progress, "cache": cache}
    others = [*(_baselines(config) if baselines and not config.is_baseline else []), *_towers(config)]
    needed = [run_experiment(engine, settings, other, **common) for other in others]
    name = name or config.kind
    rows = _rows(engine, config, split)
    inputs = _inputs(engine, config, rows, cache)
    stored = {**config.to_dict(), "inputs": _fingerprint(inputs, rows)}
    identity: dict[str, Any] = {
        "name": name,
        "target": config.target,
        "config_sha256": config_sha256(stored),
        "seed": seed,
        "split_id": rows.split_id,
    }
    with held(engine, name, config.target, run=run_key(identity)):
        with session_scope(engine) as session:
            done = None if again else find_experiment(session, **identity)
            if done is not None:
                return read_result(session, done, "unchanged", started, needed)
            experiment, resumed = begin(session, config, stored, identity, again=again)
            experiment_id = experiment.id
        towers = {r.name: r.experiment_id for r in needed if r.name in config.towers}
        try:
            with _threads(config):
                _Run(engine, settings, inputs, rows, seed, experiment_id, towers, progress, cache).all(
                    f"{name} · {config.target}"
                )
        except BaseException as error:
            status = "failed" if isinstance(error, Exception) else "interrupted"
            with session_scope(engine) as session:
                finish_experiment(session, experiment_id, status)
            raise
    with Session(engine) as session:
        finished = session.get_one(Experiment, experiment_id)
        return read_result(session, finished, "resumed" if resumed else "trained", started, needed)


def _rows(engine: Engine, config: TrainConfig, split: str) -> SplitRows:
    with Session(engine) as session:
        return load_rows(
            session,
            split,
            target=config.target,
            recipe=config.recipe if "image" in config.towers else None,
            text_level=config.text_level if "text" in config.towers else None,
            densities="density" in config.towers,
            auxiliary=config.auxiliary_targets if "auxiliary_targets" in config.to_dict() else (),
        )


def _baselines(config: TrainConfig) -> list[TrainConfig]:
    return [TrainConfig(kind=kind, target=config.target) for kind in KINDS if kind.startswith("baseline-")]


def _towers(config: TrainConfig) -> list[TrainConfig]:
    return [config.tower_config(tower) for tower in config.towers] if config.kind == "stacked" else []


def _inputs(engine: Engine, config: TrainConfig, rows: SplitRows, cache: FeatureCache) -> ModelInputs:
    """Inputs of the current revision of every crystal, and of those that the split froze."""
    with Session(engine) as session:
        current = session.scalars(select(CrystalRevision.id).where(CrystalRevision.is_current)).all()
    everything = sorted({*current, *rows.cv.revision_ids.tolist(), *rows.holdout.revision_ids.tolist()})
    return ModelInputs(engine, config, everything, recipe_id=rows.recipe_id, cache=cache)


def _fingerprint(inputs: ModelInputs, rows: SplitRows) -> dict[str, Any]:
    """What a config names, by checksum: of another recipe, backbone, text or value, it is another experiment."""
    cv = rows.cv
    read = [cv.formulas, cv.image_sha256, cv.texts, [None if files is None else files.sha256 for files in cv.densities]]
    # As JSON has it, which knows no NaN.
    taught = [[value if np.isfinite(value) else None for value in row] for row in rows.taught.reshape(len(cv), -1)]
    return {
        "recipe_sha256": rows.recipe_sha256,
        "encoders": {name: table.identity_sha256 for name, table in inputs.tables.items()},
        "rows_sha256": json_sha256([cv.revision_ids.tolist(), cv.folds.tolist(), taught, *read]),
    }


@contextmanager
def _threads(config: TrainConfig) -> Iterator[None]:
    """One thread for networks on kept features: their matrices are too small to be worth sharing out."""
    import torch

    before = torch.get_num_threads()
    if not config.finetune_enabled:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class _Stage:
    """One phase of one fold (or of the refit), ready to be written."""

    phase: str
    best_epoch: int | None
    epochs: tuple[EpochRecord, ...]
    scalers: dict[str, Any]
    scores: dict[str, tuple[dict[str, float], int]]
    """By subset: scores and the number of rows."""


class _Run:
    """One experiment under way."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        inputs: ModelInputs,
        rows: SplitRows,
        seed: int,
        experiment_id: int,
        towers: Mapping[str, int],
        progress: Progress,
        cache: FeatureCache,
    ) -> None:
        self.engine = engine
        self.config = inputs.config
        self.inputs = inputs
        self.rows = rows
        self.seed = seed
        self.experiment_id = experiment_id
        self.progress = progress
        self.store = ArtifactStore(settings.artifacts)
        self.cv = inputs.shown(rows.cv.revision_ids)
        self.backbones = inputs.backbones
        self.taught = rows.taught
        self.towers = TrainedTowers(
            engine, self.store, self.config, towers, backbones=self.backbones, cache=cache, seed=seed
        )

    def all(self, label: str) -> None:
        """Every fold that is missing, then the refit."""
        done = self._folds_done()
        folds = [fold for fold in self.rows.folds if fold not in done]
        self.progress.begin(label, len(folds) + 1)
        try:
            for fold in folds:
                note = self._fold(fold)
                self.progress.advance(1, note)
            self._refit()
            self.progress.advance(1, "refit")
        finally:
            self.progress.end()

    def _fold(self, fold: int) -> str:
        rows, cv = self.rows.cv, self.cv
        train = np.flatnonzero(rows.folds != fold)
        score = np.flatnonzero(rows.folds == fold)
        stopping = self._stopping(rows.take(train), fold)
        fit, stop = train[~stopping], train[stopping]
        shown = {"train": cv.take(fit), "validation": cv.take(score)}
        truth = {"train": rows.values[fit], "validation": rows.values[score]}
        stages: list[_Stage] = []
        model: FittedModel | None = None
        for model in self._phases(fold, fit, stop=stop if len(stop) else None):
            # What is only aligned says nothing of the target yet.
            predicted = {s: model.predict(part) for s, part in shown.items() if model.phase != "align"}
            stages.append(_stage(model, {s: (_scores(truth[s], p), len(p)) for s, p in predicted.items()}))
        assert model is not None
        with session_scope(self.engine) as session:
            version = self._write(session, model, stages, fold=fold, n_train=len(fit))
            write_predictions(session, version, rows.revision_ids[score], predicted["validation"], subset="validation")
        last = stages[-1].scores["validation"][0]
        r2 = f"R2 {last['r2']:.3f}, " if "r2" in last else ""
        return f"fold {fold}: {r2}RMSE {last['rmse']:.3g}"

    def _refit(self) -> None:
        rows, everyone = self.rows.cv, np.arange(len(self.cv))
        stages: list[_Stage] = []
        model: FittedModel | None = None
        for model in self._phases(None, everyone, epochs=self._median_epochs()):
            aligned = model.phase == "align"
            scores = {} if aligned else {"train": (_scores(rows.values, model.predict(self.cv)), len(rows))}
            stages.append(_stage(model, scores))
        assert model is not None
        holdout = self.rows.holdout
        # From here on nothing is fitted; this is the one place that looks at the holdout.
        shown = self.inputs.shown(holdout.revision_ids)
        predicted = model.predict(shown)
        if len(holdout):
            stages[-1].scores["holdout"] = (_scores(holdout.values, predicted), len(holdout))
        said = self._said(shown)
        spread = np.std(list(said.values()), axis=0, ddof=1) if len(said) > 1 and len(holdout) else None
        with session_scope(self.engine) as session:
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
                fold_predictions=said,
                predicted=predicted,
            )
            if isinstance(model, FittedNetwork):
                publish_encoder(
                    session,
                    experiment,
                    version=version,
                    model=model,
                    inputs=self.inputs,
                    preprocessing=self._described(),
                )
            finish_experiment(session, experiment)
            session.flush()
            update_best(session, experiment.name, experiment.target)
            update_default_encoder(session)

    def _phases(
        self,
        fold: int | None,
        fit: NDArray[np.int64],
        *,
        stop: NDArray[np.int64] | None = None,
        epochs: Mapping[str, int] | None = None,
    ) -> Iterator[FittedModel]:
        """Fit on the rows ``fit`` of cv, stop on the rows ``stop`` of cv, and see no others."""
        shown, taught, rows = self.cv.take(fit), self.taught[fit], self.rows.cv
        towers: dict[str, FittedModel] | None = None
        joined, unseen = None, None
        if self.config.kind == "stacked" and not self.config.joins_features:
            fitted = self.towers.fitted(fold)
            towers = {name: tower for name, (tower, _) in fitted.items()}
            groups = [rows.material_keys[i] for i in fit]
            if not self.config.is_network:
                ids = rows.revision_ids[fit]
                unseen = self.towers.unseen(fitted, shown, taught, revision_ids=ids, groups=groups, fold=fold)
            elif self.config.stack_features == "out-of-fold":
                joined = self.towers.features(fitted, shown, taught, groups=groups, fold=fold)
        return fit_phases(
            self.config,
            shown,
            taught,
            seed=derived_seed(self.seed, "fold", fold),
            stop=None if stop is None else (self.cv.take(stop), rows.values[stop]),
            epochs=epochs,
            towers=towers,
            joined=joined,
            unseen=unseen,
            backbones=self.backbones,
            on_epoch=self._teller(fold),
        )

    def _stopping(self, train: Rows, fold: int) -> NDArray[np.bool_]:
        share = self.config.stop_fraction
        if not share or not self.config.is_network:
            return np.zeros(len(train), dtype=bool)
        return inner_stop(train, fold, seed=self.seed, share=share)

    def _teller(self, fold: int | None) -> Any:
        where = "refit" if fold is None else f"fold {fold}"

        def tell(phase: str, record: EpochRecord) -> None:
            if record.epoch % 10 == 0:
                self.progress.advance(0, f"{where}, {phase}, epoch {record.epoch}")

        return tell

    def _described(self) -> dict[str, Any]:
        """What the model was trained on; it refuses to predict from anything else."""
        described: dict[str, Any] = {"target": self.rows.target, "unit": self.rows.unit, "split": self.rows.split}
        if "image" in self.config.towers:
            described["recipe"] = self.config.recipe
            described["recipe_sha256"] = self.rows.recipe_sha256
            described["image_inputs"] = [[list(channel) for channel in one] for one in self.rows.image_inputs()]
        if "text" in self.config.towers:
            described["text_level"] = self.config.text_level
        if "density" in self.config.towers:
            levels = {files.level_of_theory for files in self.rows.cv.densities if files is not None}
            described["density_levels"] = sorted(levels)
        described["backbones"] = {name: identify(backbone) for name, backbone in self.backbones.items()}
        return described

    def _write(
        self, session: Session, model: FittedModel, stages: list[_Stage], *, fold: int | None, n_train: int
    ) -> ModelVersion:
        """Write all phases; only the last keeps its weights, and its row is returned."""
        artifact = self.store.put(model.to_bytes(extra=self._described()))
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
        with Session(self.engine) as session:
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
        with Session(self.engine) as session:
            found = session.execute(
                select(ModelVersion.phase, ModelVersion.best_epoch).where(
                    ModelVersion.experiment_id == self.experiment_id,
                    ModelVersion.fold.is_not(None),
                    ModelVersion.best_epoch.is_not(None),
                )
            )
            by_phase: dict[str, list[int]] = {phase: [] for phase in phases_of(self.config)}
            for phase, best in found:
                by_phase[phase].append(best or 1)
        return {phase: max(1, round(statistics.median(best))) for phase, best in by_phase.items() if best}

    def _said(self, shown: Shown) -> dict[int, NDArray[np.float64]]:
        """By fold, what its model says of N crystals, (N,) in the unit of the target."""
        if not len(shown):
            return {}
        with Session(self.engine) as session:
            versions = _ready_folds(session, self.experiment_id)
        return {
            fold: restore(self.config, self.store.read(uri, sha), backbones=self.backbones).predict(shown)
            for fold, uri, sha in versions
        }


def _ready_folds(session: Session, experiment_id: int) -> list[tuple[int, str, str]]:
    found = session.execute(
        select(ModelVersion.fold, ModelVersion.artifact_uri, ModelVersion.artifact_sha256)
        .where(
            ModelVersion.experiment_id == experiment_id,
            ModelVersion.fold.is_not(None),
            ModelVersion.status == "ready",
        )
        .order_by(ModelVersion.fold)
    )
    return [(int(fold or 0), uri or "", sha or "") for fold, uri, sha in found]


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
