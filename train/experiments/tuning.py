"""Hyper-parameter search by cross-validation, on the cv rows alone.

A trial is a configuration whose folds are trained and scored exactly as :func:`train.experiments.run.run_experiment` would:
the same seeds, the same inner rows for stopping. No trial is refitted, none sees the holdout, and nothing of a trial
but its numbers is kept. Trials lie in the same PostgreSQL, in a schema of Optuna's own; a search that was cut off goes
on where it was, with the trials that it would have made (T. Akiba et al., KDD 2019; J. Bergstra et al., NIPS 2011).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.errors import ConfigurationError, ModelError
from registry.files.grids import GridStore
from registry.jobs.progress import Progress, Silent
from registry.settings import Settings
from train.config.config import TrainConfig
from train.experiments.locks import held
from train.experiments.rows import Rows, inner_stop, load_rows
from train.experiments.search_spaces import Parameter, apply, every_choice, space_of
from train.experiments.stacking import unseen_predictions
from train.features.cache import FeatureCache
from train.features.inputs import ModelInputs
from train.models import metrics
from train.models.fitting import FittedModel, Shown, derived_seed, fit_phases

__all__ = ["SCHEMA", "FoldScore", "TuneResult", "cross_validate", "tune"]

SCHEMA = "optuna"
"""Schema of the registry's database that holds the trials; nothing else touches it."""


@dataclass(frozen=True)
class FoldScore:
    """One fold of one trial, scored on its own rows."""

    fold: int
    rmse: float
    """In the unit of the target."""
    r2: float | None
    """None where the rows do not differ."""


@dataclass(frozen=True)
class TuneResult:
    """What became of a search."""

    study: str
    target: str
    unit: str
    split: str
    finished: int
    """Trials that the study has by now, pruned ones included."""
    pruned: int
    """Of them, given up after some of their folds."""
    made: int
    """Trials that this call made."""
    default_rmse: float | None
    """Mean over the folds of the configuration that the search began with [unit]."""
    best_rmse: float
    """The same of the best trial [unit]."""
    best_r2: float | None
    best: TrainConfig
    changed: dict[str, Any]
    """What the best trial has other than the configuration that the search began with, by parameter."""
    seconds: float
    """Wall time of this call [s]."""


def tune(
    engine: Engine,
    settings: Settings,
    config: TrainConfig,
    *,
    split: str,
    seed: int = 0,
    trials: int | None = None,
    minutes: float | None = None,
    progress: Progress | None = None,
    cache: FeatureCache | None = None,
) -> TuneResult:
    """Search the space of a kind, beginning with the configuration that is given.

    Parameters
    ----------
    engine
        Of the registry; features are written to it, and trials to the schema :data:`SCHEMA` of its database.
    settings
        Where backbones and grids are.
    config
        The first trial, and what the space does not vary.
    split
        Name of a split for the config's target; of it, the cv rows are read.
    seed
        Of the folds' weights, order and stop rows, and of the search.
    trials
        How many the study shall have, those of earlier calls included; None: as many as the time allows.
    minutes
        No trial is begun later than this.
    progress
        Told of each trial.
    cache
        Features and backbones that several searches share.

    Raises
    ------
    ConfigurationError
        If the kind has nothing to search, neither budget is given, or the schema cannot be made.
    ModelError
        If another process searches the same, or every trial failed.
    """
    if trials is None and minutes is None:
        raise ConfigurationError("a search without an end; give trials, minutes or both")
    started = time.perf_counter()
    space = space_of(config)
    progress = progress or Silent()
    cache = cache or FeatureCache(
        engine, models=settings.models, progress=progress, grids=GridStore(settings.grids_url)
    )
    rows, taught, unit, read = _read(engine, config, split, cache)
    looks = _Looks(read, rows.revision_ids)
    identity = {
        "config": config.to_dict(),
        "seed": seed,
        "space": [repr(parameter) for parameter in space],
        "encoders": {name: table.identity_sha256 for name, table in read(config).tables.items()},
        "rows": json_sha256([rows.revision_ids.tolist(), rows.folds.tolist(), np.nan_to_num(taught).tolist()]),
    }
    name = f"{config.kind}:{config.target}:{split}:{json_sha256(identity)[:12]}"
    with held(engine, "tune", name), _storage(engine) as storage:
        study = _study(storage, name, identity, space, config)
        before = len(_finished(study))
        progress.begin(f"tune {config.kind} · {config.target}", trials)
        progress.advance(min(before, trials or before), "")
        try:
            while (trials is None or len(_finished(study)) < trials) and (
                minutes is None or time.perf_counter() - started < 60 * minutes
            ):
                told = _one_trial(study, space, config, looks, rows, taught, seed=seed)
                if told is None:  # nothing is left to try
                    break
                progress.advance(1, told)
        finally:
            progress.end()
        return _result(study, config, space, split, unit, before, started)


def cross_validate(
    config: TrainConfig,
    shown: Shown,
    rows: Rows,
    *,
    seed: int,
    taught: NDArray[np.float64] | None = None,
    backbones: Mapping[str, Any] | None = None,
    towers: dict[str, Any] | None = None,
    on_fold: Callable[[FoldScore, Sequence[FoldScore]], None] | None = None,
) -> list[FoldScore]:
    """Train and score every fold, as :func:`train.experiments.run.run_experiment` does, and keep nothing.

    Parameters
    ----------
    config
        What is trained; a stack's towers are trained with it.
    shown, rows
        The cv rows of a split, N of them, in one order.
    seed
        Of the experiment.
    taught
        Where there are auxiliary targets: what is learnt of each row, (N, 1 + A), as
        :attr:`train.experiments.rows.SplitRows.taught` gives it; None: the rows' values alone.
    backbones
        The backbones by modality: a regressor weighs their groups of features, fine-tuning trains them.
    towers
        Filled with the towers of stacks that a regressor joins, and read where another configuration has the same.
    on_fold
        Told of each fold as it is scored, with all so far; what it raises ends the cross-validation.
    """
    scores: list[FoldScore] = []
    given = _Given(shown, rows, rows.values if taught is None else taught, seed, dict(backbones or {}))
    for fold in [int(fold) for fold in np.unique(rows.folds)]:
        score = np.flatnonzero(rows.folds == fold)
        predicted = _fit_fold(config, given, fold, {} if towers is None else towers).predict(shown.take(score))
        scores.append(_score(fold, rows.values[score], predicted))
        if on_fold is not None:
            on_fold(scores[-1], scores)
    return scores


# ------------------------------------------------------------------------------ private


@dataclass(frozen=True)
class _Given:
    """What a cross-validation trains from."""

    shown: Shown
    rows: Rows
    taught: NDArray[np.float64]
    seed: int
    backbones: Mapping[str, Any]

    def fit(
        self,
        config: TrainConfig,
        fold: int,
        *,
        towers: Mapping[str, FittedModel] | None = None,
        unseen: NDArray[np.float64] | None = None,
    ) -> tuple[FittedModel, dict[str, int]]:
        """The model of a fold, and the epochs of its phases."""
        train = self.training(fold)
        stopping = np.zeros(len(train), dtype=bool)
        if config.is_network and config.stop_fraction:
            stopping = inner_stop(self.rows.take(train), fold, seed=self.seed, share=config.stop_fraction)
        fit, stop = train[~stopping], train[stopping]
        epochs: dict[str, int] = {}
        for model in fit_phases(
            config,
            self.shown.take(fit),
            self.taught[fit],
            seed=derived_seed(self.seed, "fold", fold),
            stop=(self.shown.take(stop), self.rows.values[stop]) if len(stop) else None,
            towers=towers,
            unseen=unseen,
            backbones={name: backbone for name, backbone in self.backbones.items() if name in config.towers},
        ):
            epochs[model.phase] = 1 if model.result is None else model.result.best_epoch
        return model, epochs

    def training(self, fold: int) -> NDArray[np.int64]:
        """Places of the rows that a fold is trained on."""
        return np.flatnonzero(self.rows.folds != fold)

    def unseen(self, config: TrainConfig, fold: int, epochs: Mapping[str, int]) -> NDArray[np.float64]:
        """What a tower says of the training rows of a fold that it has not seen, (N,)."""
        train = self.training(fold)
        return unseen_predictions(
            config,
            self.shown.take(train),
            self.taught[train],
            epochs=epochs,
            groups=[self.rows.material_keys[i] for i in train],
            seed=derived_seed(self.seed, "fold", fold),
            backbones={name: backbone for name, backbone in self.backbones.items() if name in config.towers},
        )


def _fit_fold(config: TrainConfig, given: _Given, fold: int, known: dict[str, Any]) -> FittedModel:
    if config.kind != "stacked" or config.joins_features:
        return given.fit(config, fold)[0]
    single = {tower: config.tower_config(tower) for tower in config.towers}
    if config.is_network:  # which goes on with the weights of its towers
        return given.fit(config, fold, towers={name: given.fit(one, fold)[0] for name, one in single.items()})[0]
    towers, columns = {}, []
    for name, one in single.items():
        key = json_sha256([one.to_dict(), fold])
        if key not in known:
            tower, epochs = given.fit(one, fold)
            known[key] = tower, given.unseen(one, fold, epochs)
        towers[name], column = known[key]
        columns.append(column)
    return given.fit(config, fold, towers=towers, unseen=np.column_stack(columns))[0]


class _Looks:
    """What the configurations of a search are shown: each reads the features of its own backbones."""

    def __init__(self, read: Callable[[TrainConfig], ModelInputs], revision_ids: NDArray[np.int64]) -> None:
        self._read = read
        self._ids = revision_ids
        self._known: dict[tuple[object, ...], tuple[Shown, Mapping[str, Any]]] = {}
        self.towers: dict[str, Any] = {}

    def __call__(self, config: TrainConfig) -> tuple[Shown, Mapping[str, Any]]:
        key = (config.towers, *(getattr(config, f"{tower}_backbone") for tower in config.towers))
        if key not in self._known:
            inputs = self._read(config)
            # A dense readout on frozen features never asks for the backbone itself, which may be large.
            needs = config.finetune_enabled or not config.is_network
            self._known[key] = inputs.shown(self._ids), inputs.backbones if needs else {}
        return self._known[key]


def _score(fold: int, truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> FoldScore:
    r2 = None if np.ptp(truth) == 0 else metrics.r2(truth, predicted)
    return FoldScore(fold, metrics.rmse(truth, predicted), r2)


def _read(
    engine: Engine, config: TrainConfig, split: str, cache: FeatureCache
) -> tuple[Rows, NDArray[np.float64], str, Callable[[TrainConfig], ModelInputs]]:
    with Session(engine) as session:
        rows = load_rows(
            session,
            split,
            target=config.target,
            recipe=config.recipe if "image" in config.towers else None,
            text_level=config.text_level if "text" in config.towers else None,
            densities="density" in config.towers,
            auxiliary=config.auxiliary_targets,
        )
    # The holdout is let go of here: from now on there is nothing that could look at it.
    cv, taught, unit, recipe_id = rows.cv, rows.taught, rows.unit, rows.recipe_id

    def read(one: TrainConfig) -> ModelInputs:
        recipe = recipe_id if "image" in one.towers else None
        return ModelInputs(engine, one, cv.revision_ids.tolist(), recipe_id=recipe, cache=cache)

    return cv, taught, unit, read


@contextmanager
def _storage(engine: Engine) -> Iterator[Any]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with engine.begin() as connection:
            if connection.scalar(text("SELECT to_regnamespace(:name)"), {"name": SCHEMA}) is None:
                connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
    except DBAPIError as error:
        raise ConfigurationError(
            f"the schema {SCHEMA!r} that holds trials cannot be made ({str(error.orig).splitlines()[0]}); let an"
            f" administrator run `CREATE SCHEMA {SCHEMA} AUTHORIZATION` your role"
        ) from error
    given = engine.url.query.get("options", "")
    options = f"{given if isinstance(given, str) else ' '.join(given)} -csearch_path={SCHEMA}".strip()
    storage = optuna.storages.RDBStorage(
        engine.url.render_as_string(hide_password=False),
        engine_kwargs={"connect_args": {"options": options, "application_name": "ecdreg tune"}, "pool_pre_ping": True},
    )
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _study(
    storage: Any, name: str, identity: Mapping[str, Any], space: Sequence[Parameter], config: TrainConfig
) -> Any:
    import optuna
    from optuna.trial import TrialState

    study = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="minimize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    )
    if not study.trials:
        study.set_user_attr("identity", dict(identity))
    # The search is ours alone: what still runs belonged to a process that died.
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    if not _finished(study) and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial({parameter.name: parameter.value_in(config) for parameter in space})
    return study


def _finished(study: Any) -> list[Any]:
    from optuna.trial import TrialState

    found: list[Any] = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return found


def _one_trial(
    study: Any,
    space: Sequence[Parameter],
    config: TrainConfig,
    looks: _Looks,
    rows: Rows,
    taught: NDArray[np.float64],
    *,
    seed: int,
) -> str | None:
    import optuna
    from optuna.trial import TrialState

    # Where there are choices alone, none is tried twice.
    if (choices := every_choice(space)) is not None and _finished(study):
        # Two choices may be one configuration: what a tower reads that is not there.
        tried_already = {json_sha256(trial.user_attrs["config"]) for trial in _finished(study)}
        order = np.random.default_rng(derived_seed(seed, "order")).permutation(len(choices))
        left = [choices[i] for i in order if json_sha256(apply(config, choices[i]).to_dict()) not in tried_already]
        if not left:
            return None
        if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            study.enqueue_trial(left[0])
    # A generator of each trial's own: a search that was cut off goes on as if nothing had happened.
    number = len(_finished(study))
    study.sampler = optuna.samplers.TPESampler(seed=derived_seed(seed, "trial", number), n_startup_trials=10)
    trial = study.ask()
    chosen = {parameter.name: parameter.suggest(trial) for parameter in space}
    tried = apply(config, chosen)
    trial.set_user_attr("config", tried.to_dict())

    def report(_: FoldScore, scores: Sequence[FoldScore]) -> None:
        trial.report(float(np.mean([s.rmse for s in scores])), step=len(scores))
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        shown, backbones = looks(tried)
        with _one_thread(tried):
            scores = cross_validate(
                tried,
                shown,
                rows,
                seed=seed,
                taught=taught,
                backbones=backbones,
                towers=looks.towers,
                on_fold=report,
            )
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        return f"trial {number}: given up"
    except ModelError as error:  # a loss that is not finite is an answer too: the worst
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=TrialState.PRUNED)
        return f"trial {number}: {error}"
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise
    r2 = [s.r2 for s in scores if s.r2 is not None]
    trial.set_user_attr("folds", [{"fold": s.fold, "rmse": s.rmse, "r2": s.r2} for s in scores])
    trial.set_user_attr("r2", float(np.mean(r2)) if r2 else None)
    rmse = float(np.mean([s.rmse for s in scores]))
    study.tell(trial, rmse)
    return f"trial {number}: RMSE {rmse:.4g}"


@contextmanager
def _one_thread(config: TrainConfig) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    if not config.finetune_enabled:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _result(
    study: Any,
    config: TrainConfig,
    space: Sequence[Parameter],
    split: str,
    unit: str,
    before: int,
    started: float,
) -> TuneResult:
    from optuna.trial import TrialState

    finished = _finished(study)
    complete = [trial for trial in finished if trial.state == TrialState.COMPLETE]
    if not complete:
        raise ModelError(
            f"study {study.study_name}: no trial of {len(finished)} has come to an end; give more trials or minutes"
        )
    best = min(complete, key=lambda trial: (trial.value, trial.number))
    tuned = TrainConfig.from_dict(best.user_attrs["config"])
    start = {parameter.name: parameter.value_in(config) for parameter in space}
    default = next((trial.value for trial in complete if trial.params == start), None)
    return TuneResult(
        study=study.study_name,
        target=config.target,
        unit=unit,
        split=split,
        finished=len(finished),
        pruned=len(finished) - len(complete),
        made=len(finished) - before,
        default_rmse=default,
        best_rmse=best.value,
        best_r2=best.user_attrs.get("r2"),
        best=replace(tuned, target=config.target),
        changed={name: value for name, value in best.params.items() if value != start[name]},
        seconds=time.perf_counter() - started,
    )
