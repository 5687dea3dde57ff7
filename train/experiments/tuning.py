"""Hyper-parameter search by cross-validation, on the cross-validated rows of a split alone.

A trial is a configuration whose folds are trained and scored as :func:`train.experiments.run.run_experiment` does it:
the same seeds, the same inner rows of early stopping. No trial is refitted, none reads the holdout, and nothing of a
trial but its numbers is kept. Trials are stored in the same PostgreSQL, in a schema of Optuna; an interrupted search
continues with the same trials as without the interruption (T. Akiba et al., KDD 2019; J. Bergstra et al., NIPS 2011).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.errors import ConfigurationError, ModelError
from train.config.config import TrainConfig
from train.config.kinds import parse_config
from train.config.parameters import Parameter
from train.experiments.context import ExperimentContext
from train.experiments.cross_validation import FoldScore, TowerMemory, cross_validate
from train.experiments.locks import run_lock
from train.experiments.rows import Rows, load_rows
from train.experiments.run import single_thread
from train.experiments.search_spaces import apply, every_choice, space_of
from train.features.batch import Batch
from train.features.inputs import ModelInputs
from train.featurizers.catalog import Featurizer
from train.modalities.image import ImageColumn
from train.models.fitted import derived_seed

__all__ = ["SCHEMA", "TuneResult", "tune"]

_log = logging.getLogger("train")

SCHEMA = "optuna"
"""Schema of the registry's database for the trials; no other code uses it."""


@dataclass(frozen=True)
class TuneResult:
    """Result of a search."""

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
    """Parameters in which the best trial differs from the first configuration of the search, with their values."""
    seconds: float
    """Wall time of this call [s]."""


def tune(
    context: ExperimentContext,
    config: TrainConfig,
    *,
    split: str,
    seed: int = 0,
    trials: int | None = None,
    minutes: float | None = None,
) -> TuneResult:
    """Search the space of a kind, beginning with a given configuration.

    Parameters
    ----------
    context
        The open registry and its caches. Features are written to the database, and trials to its schema :data:`SCHEMA`.
    config
        The first trial, and the fields that the space does not vary.
    split
        Name of a split for the target of the configuration, of which the cross-validated rows are read.
    seed
        Seed of the folds' weights, order and rows of early stopping, and of the search.
    trials
        Number of trials of the study, earlier calls included; None: as many as the time allows.
    minutes
        No trial begins later than this.

    Raises
    ------
    ConfigurationError
        If the kind has nothing to search, neither budget is given, or the schema cannot be made.
    ModelError
        If another process searches the same, or every trial failed.
    """
    if trials is None and minutes is None:
        raise ConfigurationError("the search has no end; give trials, minutes or both")
    started = time.perf_counter()
    search = _Search.begin(context, config, split, seed)
    progress = context.progress
    with run_lock(context.engine, "tune", search.name), _storage(context.engine) as storage:
        study = _study(storage, search)
        before = len(_finished(study))
        _log.info("study %s: %d trials are finished, %d parameters vary", search.name, before, len(search.space))
        progress.begin(f"tune {config.kind} · {config.target}", trials)
        progress.advance(min(before, trials or before), "")
        try:
            while (trials is None or len(_finished(study)) < trials) and (
                minutes is None or time.perf_counter() - started < 60 * minutes
            ):
                outcome = _one_trial(study, search)
                if outcome is None:  # every choice has been tried
                    break
                _log.debug("study %s: %s", search.name, outcome)
                progress.advance(1, outcome)
        finally:
            progress.end()
        return _result(study, search, split, before, started)


# ------------------------------------------------------------------------------ private


@dataclass
class _Search:
    """One search: first configuration, search space, and scored rows."""

    config: TrainConfig
    space: tuple[Parameter, ...]
    rows: Rows
    targets: NDArray[np.float64]
    unit: str
    seed: int
    name: str
    """Name of the study."""
    identity: dict[str, Any]
    """Description that distinguishes the study from others."""
    _inputs_of: Callable[[TrainConfig], ModelInputs]
    memory: TowerMemory = field(default_factory=TowerMemory)
    _batches: dict[str, tuple[Batch, Mapping[str, Featurizer]]] = field(default_factory=dict)

    @classmethod
    def begin(cls, context: ExperimentContext, config: TrainConfig, split: str, seed: int) -> _Search:
        """Read the rows of a search."""
        space = space_of(config)
        with Session(context.engine) as session:
            rows = load_rows(session, split, target=config.target, inputs=config.inputs, auxiliary=config.auxiliary)
        # Nothing else of the split is kept: from here on there is nothing that could read the holdout.
        cv, targets, unit = rows.cv, rows.targets, rows.unit
        images = cv.columns.get("image")
        recipe = images.recipe_sha256 if isinstance(images, ImageColumn) else None

        def inputs_of(one: TrainConfig) -> ModelInputs:
            return context.inputs(one, cv.revision_ids.tolist(), recipe_sha256=recipe)

        identity = {
            "config": config.to_dict(),
            "seed": seed,
            "space": [repr(parameter) for parameter in space],
            "encoders": {name: table.identity_sha256 for name, table in inputs_of(config).tables.items()},
            "rows": json_sha256([cv.revision_ids.tolist(), cv.folds.tolist(), np.nan_to_num(targets).tolist()]),
        }
        name = f"{config.kind}:{config.target}:{split}:{json_sha256(identity)[:12]}"
        return cls(config, space, cv, targets, unit, seed, name, identity, inputs_of)

    def batch(self, config: TrainConfig) -> tuple[Batch, Mapping[str, Featurizer]]:
        """Inputs of the rows for a configuration, and the featurizers that it needs."""
        key = json_sha256({name: features.to_dict() for name, features in config.inputs.items()})
        if key not in self._batches:
            inputs = self._inputs_of(config)
            # Dense layers on frozen features never read the featurizer itself, which may be large.
            needs = config.finetune_enabled or not config.is_network
            self._batches[key] = inputs.batch(self.rows.revision_ids), inputs.backbones if needs else {}
        return self._batches[key]


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


def _study(storage: Any, search: _Search) -> Any:
    import optuna
    from optuna.trial import TrialState

    study = optuna.create_study(
        storage=storage,
        study_name=search.name,
        direction="minimize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    )
    if not study.trials:
        study.set_user_attr("identity", search.identity)
    # This process holds the lock: a trial that is still running belonged to a process that died.
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    if not _finished(study) and not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        study.enqueue_trial({parameter.name: parameter.value_in(search.config) for parameter in search.space})
    return study


def _finished(study: Any) -> list[Any]:
    from optuna.trial import TrialState

    found: list[Any] = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return found


def _one_trial(study: Any, search: _Search) -> str | None:
    import optuna
    from optuna.trial import TrialState

    config, space, seed = search.config, search.space, search.seed
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
    # Each trial has its own generator: an interrupted search continues with the same trials.
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
        batch, backbones = search.batch(tried)
        with single_thread(tried):
            scores = cross_validate(
                tried,
                batch,
                search.rows,
                seed=seed,
                targets=search.targets,
                backbones=backbones,
                memory=search.memory,
                on_fold=report,
            )
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED)
        return f"trial {number}: given up"
    except ModelError as error:  # a loss that is not finite is a result: the worst one
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


def _result(study: Any, search: _Search, split: str, before: int, started: float) -> TuneResult:
    from optuna.trial import TrialState

    finished = _finished(study)
    complete = [trial for trial in finished if trial.state == TrialState.COMPLETE]
    if not complete:
        raise ModelError(
            f"study {study.study_name}: no trial of {len(finished)} has come to an end; give more trials or minutes"
        )
    best = min(complete, key=lambda trial: (trial.value, trial.number))
    config = search.config
    tuned = parse_config(best.user_attrs["config"])
    start = {parameter.name: parameter.value_in(config) for parameter in search.space}
    default = next((trial.value for trial in complete if trial.params == start), None)
    return TuneResult(
        study=study.study_name,
        target=config.target,
        unit=search.unit,
        split=split,
        finished=len(finished),
        pruned=len(finished) - len(complete),
        made=len(finished) - before,
        default_rmse=default,
        best_rmse=best.value,
        best_r2=best.user_attrs.get("r2"),
        best=tuned.replace(target=config.target),
        changed={name: value for name, value in best.params.items() if value != start[name]},
        seconds=time.perf_counter() - started,
    )
