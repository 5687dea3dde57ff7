"""Hyper-parameter search by cross-validation, on the cv rows alone.

A trial is a configuration whose folds are trained and scored exactly as :func:`train.experiment.run_experiment` would:
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
from registry.grids import GridStore
from registry.progress import Progress, Silent
from registry.settings import Settings
from train import metrics
from train.claims import held
from train.config import TrainConfig
from train.data import Rows, inner_stop, load_rows
from train.features import FeatureCache
from train.fitting import FittedModel, Shown, derived_seed, fit_phases
from train.inputs import ModelInputs
from train.spaces import Parameter, apply, space_of

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
    rows, taught, unit, inputs = _read(engine, config, split, cache)
    shown, backbones = inputs.shown(rows.revision_ids), inputs.backbones if config.finetune_enabled else {}
    identity = {
        "config": config.to_dict(),
        "seed": seed,
        "space": [repr(parameter) for parameter in space],
        "encoders": {name: table.identity_sha256 for name, table in inputs.tables.items()},
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
                told = _one_trial(study, space, config, shown, rows, taught, seed=seed, backbones=backbones)
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
    on_fold: Callable[[FoldScore, Sequence[FoldScore]], None] | None = None,
) -> list[FoldScore]:
    """Train and score every fold, as :func:`train.experiment.run_experiment` does, and keep nothing.

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
        :attr:`train.data.SplitRows.taught` gives it; None: the rows' values alone.
    backbones
        The pre-trained backbones, where they are fine-tuned.
    on_fold
        Told of each fold as it is scored, with all so far; what it raises ends the cross-validation.
    """
    scores: list[FoldScore] = []
    taught = rows.values if taught is None else taught
    for fold in [int(fold) for fold in np.unique(rows.folds)]:
        train, score = np.flatnonzero(rows.folds != fold), np.flatnonzero(rows.folds == fold)
        stopping = np.zeros(len(train), dtype=bool)
        if config.is_network and config.stop_fraction:
            stopping = inner_stop(rows.take(train), fold, seed=seed, share=config.stop_fraction)
        fold_seed = derived_seed(seed, "fold", fold)
        fit, stop = train[~stopping], train[stopping]

        def fitted(one: TrainConfig, towers: Mapping[str, FittedModel] | None = None) -> FittedModel:
            *_, model = fit_phases(
                one,
                shown.take(fit),  # noqa: B023  used within the fold
                taught[fit],  # noqa: B023
                seed=fold_seed,  # noqa: B023
                stop=(shown.take(stop), rows.values[stop]) if len(stop) else None,  # noqa: B023
                towers=towers,
                backbones={name: b for name, b in (backbones or {}).items() if name in one.towers},
            )
            return model

        towers = {tower: fitted(config.tower_config(tower)) for tower in config.towers} if _is_stack(config) else None
        predicted = fitted(config, towers).predict(shown.take(score))
        scores.append(_score(fold, rows.values[score], predicted))
        if on_fold is not None:
            on_fold(scores[-1], scores)
    return scores


# ------------------------------------------------------------------------------ private


def _is_stack(config: TrainConfig) -> bool:
    return config.kind == "stacked"


def _score(fold: int, truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> FoldScore:
    r2 = None if np.ptp(truth) == 0 else metrics.r2(truth, predicted)
    return FoldScore(fold, metrics.rmse(truth, predicted), r2)


def _read(
    engine: Engine, config: TrainConfig, split: str, cache: FeatureCache
) -> tuple[Rows, NDArray[np.float64], str, ModelInputs]:
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
    return cv, taught, unit, ModelInputs(engine, config, cv.revision_ids.tolist(), recipe_id=recipe_id, cache=cache)


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
    shown: Shown,
    rows: Rows,
    taught: NDArray[np.float64],
    *,
    seed: int,
    backbones: Mapping[str, Any],
) -> str:
    import optuna
    from optuna.trial import TrialState

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
        with _one_thread(config):
            scores = cross_validate(tried, shown, rows, seed=seed, taught=taught, backbones=backbones, on_fold=report)
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
