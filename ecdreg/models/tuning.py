"""Tuning: search for hyper-parameters by cross-validation, and configuration files of the best trials."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecdreg.models.training import views_of
from ecdreg.results import Results
from registry.database import session_scope
from registry.errors import ConfigurationError
from registry.jobs.progress import Progress, Silent
from registry.properties import TARGETS, property_named
from registry.splits.creation import DEFAULT_SPLIT
from registry.splits.reading import find_split

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection
    from train.config.config import TrainConfig
    from train.experiments.tuning import TuneResult
    from train.models.options import ModelOptions


__all__ = ["DEFAULT_TRIALS", "TunedModel", "tune"]

DEFAULT_TRIALS = 40
"""Trials of a search with neither a number of trials nor a time."""

_PUBLISHED_CLIP = "openai/clip-vit-base-patch32"
_log = logging.getLogger("ecdreg")


@dataclass(frozen=True)
class TunedModel:
    """The best configuration for one target."""

    result: TuneResult
    file: Path | None
    """TOML file with the configuration; None where none was requested."""

    def to_dict(self) -> dict[str, Any]:
        """The row of the JSON output."""
        file = None if self.file is None else str(self.file)
        return asdict(self.result) | {"best": self.result.best.to_dict(), "file": file}


def tune(
    registry: RegistryConnection,
    kind: str,
    *,
    targets: Sequence[str] | None = None,
    split: str = DEFAULT_SPLIT,
    recipe: str = "metric",
    text_level: str = "keywords",
    config: Path | None = None,
    dense: bool = False,
    trials: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    folder: Path | None = Path(),
    progress: Progress | None = None,
) -> Results[TunedModel]:
    """Search the hyper-parameters of a kind of model; the holdout is not read.

    The first trial is what :func:`ecdreg.models.training.train` trains by default, so that the best is never worse in
    cross-validation.

    Parameters
    ----------
    registry
        An open registry; features and trials are written to it.
    kind
        ``image``, ``text``, ``composition``, ``density``, ``stacked``, ``dual-encoder``, ``clip`` or
        ``baseline-magpie``; or a modality or a model kind that another package adds.
    targets
        Properties to predict, a search for each; None: the three of the paper.
    split
        Name of the split; its cv rows are read.
    recipe, text_level
        Inputs of the first trial, where the kind has them.
    config
        TOML file with the configuration of the first trial, whatever its target.
    dense
        Begin with the paper's protocol with substitute backbones, and vary the training of its dense readouts.
    trials
        Trials of the search, those of earlier calls included; None: :data:`DEFAULT_TRIALS` without ``minutes``.
    minutes
        No trial begins later than this, for each target.
    seed
        Seed of the folds' weights, and of the search.
    folder
        Where ``KIND-TARGET.toml`` is written; None: nowhere.
    progress
        Receives the trials.

    Raises
    ------
    ConfigurationError
        If an option cannot be used, or the folder or a file cannot be written to.
    UnknownNameError, NotFoundError
        If there is no such property or split.
    ModelError
        If another process runs the same search, or every trial failed.
    """
    from train.experiments.context import ExperimentContext
    from train.experiments.tuning import tune as search

    progress = progress or Silent()
    chosen = list(dict.fromkeys(targets or TARGETS))
    for target in chosen:
        property_named(target)
    if dense and config is not None:
        raise ConfigurationError("dense and config both define the first trial; give one of them")
    configs = _first_trials(kind, chosen, _options(kind, recipe, text_level, config, dense=dense))
    if folder is not None and not folder.is_dir():
        raise ConfigurationError(f"no folder {folder}; make it, or give another one")
    with session_scope(registry.engine) as session:
        for target in chosen:
            find_split(session, split, target)  # before the first search begins
    budget = DEFAULT_TRIALS if trials is None and minutes is None else trials
    _log.info("tuning %s for %s on split %r", kind, ", ".join(chosen), split)
    context = ExperimentContext.open(registry.engine, registry.settings, progress=progress)
    tuned = []
    for one in configs:
        result = search(
            context,
            one,
            split=split,
            seed=seed,
            trials=budget,
            minutes=minutes,
        )
        tuned.append(TunedModel(result, None if folder is None else _write(result, kind, folder)))
    return Results(tuple(tuned))


def _options(kind: str, recipe: str, text_level: str, config: Path | None, *, dense: bool) -> ModelOptions:
    """Options of the first trial: those that training has by default, or those of a file."""
    from train.config.files import read_config
    from train.models.options import ModelOptions

    clip = _PUBLISHED_CLIP if kind == "clip" else None
    if config is not None:
        fields = read_config(config, kind)
        # Whether a GPU is there must not decide what a search begins with.
        return ModelOptions(
            clip=clip, finetune=bool(fields.get("training", {}).get("finetune_enabled", False)), fields=fields
        )
    views = views_of(recipe) if kind in ("image", "stacked") else None
    return ModelOptions(recipe=recipe, text_level=text_level, views=views, clip=clip, finetune=False, dense=dense)


def _first_trials(kind: str, targets: Sequence[str], options: ModelOptions) -> list[TrainConfig]:
    from train.models.options import build_config

    return [build_config(kind, target, options) for target in targets]


def _write(result: TuneResult, kind: str, folder: Path) -> Path:
    from train.config.files import toml_of

    file = folder / f"{kind}-{result.target}.toml"
    heading = (
        f"# {result.study}: the best of {result.finished} trials in cross-validation on split {result.split},"
        f" RMSE {result.best_rmse:.4g} {result.unit}\n"
    )
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        part.write_text(heading + toml_of(result.best), encoding="utf-8")
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigurationError(f"cannot write {file}: {error.strerror}; choose another folder") from error
    return file
