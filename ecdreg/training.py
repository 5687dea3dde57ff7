"""What every ``ecdreg train ...`` does once its options are read: find or make the split, train, compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from cli import output
from cli.commands.leaderboard import leaderboard_rows, show_leaderboard
from cli.options.common import none_or, open_engine
from cli.options.common import settings as environment
from train.config.files import read_config

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from registry.jobs.progress import Progress
    from registry.models import Split
    from train.config.config import TrainConfig
    from train.experiments.results import ExperimentResult

__all__ = ["Request", "train"]


@dataclass(frozen=True)
class Request:
    """What the options of ``ecdreg train ...`` ask for."""

    kinds: tuple[str, ...]
    targets: list[str] | None
    split: str
    recipe: str
    """Where the default split is made now: what it requires; ``none`` requires no image."""
    text_level: str
    """The same of texts."""
    seed: int
    again: bool
    json: bool
    finetune: bool | None = None
    name: str | None = None
    max_epochs: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    """Of the configuration; what the model sees is among them."""
    config: Path | None = None
    """A TOML file with fields of the configuration, which win over the options."""
    multi_task: bool = False
    """Whether dense readouts learn the other targets too."""


def train(asked: Request) -> None:
    """Train what was asked for, for every target, and show how it compares.

    Parameters
    ----------
    asked
        The options of the command.
    """
    from registry.model_store import check_model_name
    from registry.properties import TARGETS, property_named

    targets = list(dict.fromkeys(asked.targets or TARGETS))
    # Options are refused before a split is made by them.
    if asked.name is not None:
        check_model_name(asked.name)
    if asked.options.get("recipe") == "none":
        raise typer.BadParameter("--recipe none leaves nothing to look at; it is for `train text` and `train baseline`")
    _check_text_level(asked)
    configs = [config for target in targets for config in _configs(asked, target)]
    _warn_of_what_does_nothing(asked, configs)
    engine = open_engine()
    try:
        from registry.database import session_scope

        for target in targets:
            property_named(target)
        for target in targets:
            with session_scope(engine) as session:
                _announce(session, asked, target)
        results = _run(engine, asked, configs)
        with session_scope(engine) as session:
            rows = leaderboard_rows(session, targets, asked.split)
    finally:
        engine.dispose()
    if asked.json:
        output.json({"experiments": [asdict(result) for result in results], "leaderboard": rows})
        return
    for result in results:
        if result.outcome == "unchanged":
            output.note(f"{result.model} had been trained already; --again trains a new version")
    show_leaderboard(rows)
    if not asked.kinds[0].startswith("baseline"):
        called = asked.name or asked.kinds[0]
        output.note(
            f"go on: ecdreg predict {called} ID · ecdreg similar ID ·"
            f" ecdreg report {called}:{targets[0]} -o report.html"
        )


def _warn_of_what_does_nothing(asked: Request, configs: Sequence[TrainConfig]) -> None:
    given = [name for name, on in (("--multi-task", asked.multi_task), ("--finetune", asked.finetune)) if on]
    if given and any(config.joins_features for config in configs):
        output.note(
            f"{' and '.join(given)} acts on the towers beside this stack; the stack itself reads frozen features"
            " (--join network joins trained towers)"
        )


def _run(engine: Engine, asked: Request, configs: Sequence[TrainConfig]) -> list[ExperimentResult]:
    from registry.files.grids import GridStore
    from train.experiments.run import run_experiment
    from train.features.cache import FeatureCache

    settings = environment()
    with output.progress() as progress:
        grids = GridStore(settings.grids_url)
        cache = FeatureCache(engine, models=settings.models, progress=progress, grids=grids)
        results = [
            run_experiment(
                engine,
                settings,
                config,
                split=asked.split,
                seed=asked.seed,
                name=asked.name,
                again=asked.again,
                progress=progress,
                cache=cache,
            )
            for config in configs
        ]
        if any("density" in config.towers for config in configs):
            _add_fingerprint(engine, progress)
        return results


def _add_fingerprint(engine: Engine, progress: Progress) -> None:
    """What it is made of is there once a model has read densities, so that searches have it for nothing."""
    from registry.database import session_scope
    from registry.errors import EcdregError
    from registry.files.grids import GridStore
    from train.experiments.publish import update_default_encoder
    from train.features.cache import add_encoder
    from train.features.fingerprint import FINGERPRINT

    settings = environment()
    grids = GridStore(settings.grids_url)
    try:
        add_encoder(engine, FINGERPRINT, models=settings.models, progress=progress, grids=grids)
    except EcdregError as error:  # what was trained is there, and is shown
        output.warn(f"not every crystal has a fingerprint: {error}; `ecdreg encoders add {FINGERPRINT}` makes the rest")
    with session_scope(engine) as session:
        update_default_encoder(session)


def _check_text_level(asked: Request) -> None:
    from train.config.config import TrainConfig

    # A model that reads no text has no such option, but the split may be made with it.
    if asked.text_level != "none":
        TrainConfig.from_dict({"kind": "text", "target": "k_vrh", "text_level": asked.text_level})


def _configs(asked: Request, target: str) -> list[TrainConfig]:
    from registry.properties import TARGETS
    from train.config.config import FIXED_MODALITIES, TrainConfig
    from train.models.devices import has_accelerator

    configs = []
    for kind in asked.kinds:
        from_file = {} if asked.config is None else read_config(asked.config, kind)
        config = TrainConfig.from_dict({"kind": kind, "target": target, **asked.options, **from_file})
        # A stack passes these on to its towers, whether or not they act on its join.
        trains = kind == "stacked" or "readout" in config.to_dict()
        if trains and kind not in FIXED_MODALITIES:
            usual = from_file.get("finetune_enabled", has_accelerator())
            finetune = usual if asked.finetune is None else asked.finetune
            config = replace(config, finetune_enabled=finetune)
        if asked.multi_task:
            if not trains:
                raise typer.BadParameter("--multi-task is for dense readouts, and this model has none")
            config = replace(config, auxiliary_targets=tuple(name for name in TARGETS if name != target))
        if asked.max_epochs is not None and trains:
            config = replace(
                config,
                readout=replace(config.readout, max_epochs=asked.max_epochs),
                finetune=replace(config.finetune, max_epochs=asked.max_epochs),
                align=replace(config.align, max_epochs=asked.max_epochs),
            )
        configs.append(config)
    return configs


def _announce(session: Session, asked: Request, target: str) -> None:
    """Find the split, or make the default one; say what it holds when it is new, and what it does not hold."""
    from registry.splits import DEFAULT_SPLIT, find_split, growth_since, split_summary

    name = asked.split
    known = {summary.target for summary in split_summary(session, name)} if _exists(session, name) else set()
    if name != DEFAULT_SPLIT or target in known:
        split = find_split(session, name, target)
        if grown := growth_since(session, split):
            output.note(
                f"{grown} crystals came after split {name!r} for {target} was frozen;"
                f" `ecdreg split create NAME --target {target}` makes one with them"
            )
        return
    split = _make_default(session, asked, target)
    (summary,) = [s for s in split_summary(session, name) if s.target == target]
    reasons = ", ".join(f"{n} {reason}" for reason, n in summary.reasons.items())
    output.note(
        f"made split {name!r} for {target}: {summary.cv} crystals in {split.n_folds} folds, {summary.holdout} held out,"
        f" {summary.excluded} excluded" + (f" ({reasons})" if reasons else "")
    )


def _exists(session: Session, name: str) -> bool:
    from registry.splits import list_splits

    return any(summary.name == name for summary in list_splits(session))


def _make_default(session: Session, asked: Request, target: str) -> Split:
    from registry.errors import NotFoundError
    from registry.image_recipes import find_recipe
    from registry.splits import ensure_default_split

    recipe, text_level = none_or(asked.recipe), none_or(asked.text_level)
    if recipe is not None and not {"image", "stacked", "clip", "dual-encoder"} & set(asked.kinds):
        # All kinds share one split where they can; without any image there is none to share.
        try:
            find_recipe(session, recipe)
        except NotFoundError:
            output.note(f"no images of recipe {recipe!r}: the split for {target} does without")
            recipe = None
    return ensure_default_split(session, target, recipe=recipe, text_level=text_level)
