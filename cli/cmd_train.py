"""``ecdreg train``: towers, stacks and baselines on a split; ``ecdreg leaderboard``: how they compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.options import (
    JsonOption,
    RecipeOption,
    SeedOption,
    SplitOption,
    TargetOption,
    TextLevelOption,
    command_group,
    none_or,
    open_engine,
)
from cli.options import settings as environment

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from registry.models import Split
    from train.config import TrainConfig
    from train.results import ExperimentResult

__all__ = ["register"]

ImageBackboneOption = Annotated[
    str, typer.Option("--image-backbone", metavar="NAME", help="Image backbone: a name, a folder or a hub id.")
]
TextBackboneOption = Annotated[
    str, typer.Option("--text-backbone", metavar="NAME", help="Text backbone: a name, a folder or a hub id.")
]
FinetuneOption = Annotated[
    bool | None,
    typer.Option("--finetune/--no-finetune", help="Fine-tune the backbones; by default only where there is a GPU."),
]
NameOption = Annotated[str | None, typer.Option("--name", metavar="NAME", help="What to call the model.")]
MaxEpochsOption = Annotated[
    int | None, typer.Option("--max-epochs", min=1, help="Epochs of each phase at most; 700 by default.")
]
AgainOption = Annotated[bool, typer.Option("--again", help="Train a new version even if the same one is finished.")]
StackFeaturesOption = Annotated[
    str | None,
    typer.Option(
        "--stack-features",
        metavar="WHICH",
        help="Tower features that the stack is fitted to: in-sample (default) or out-of-fold.",
    ),
]


@dataclass(frozen=True)
class _Request:
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


def register(app: typer.Typer) -> None:
    """Attach ``ecdreg train image|text|stacked|baseline`` and ``ecdreg leaderboard``.

    Parameters
    ----------
    app
        The root application.
    """
    group = command_group("Train models on a split; every leaderboard shows the baselines beside them.")
    group.command("image")(image)
    group.command("text")(text)
    group.command("stacked")(stacked)
    group.command("baseline")(baseline)
    app.add_typer(group, name="train")
    app.command("leaderboard")(leaderboard)


def image(
    target: TargetOption = None,
    split: SplitOption = "default",
    recipe: RecipeOption = "metric",
    text_level: TextLevelOption = "keywords",
    image_backbone: ImageBackboneOption = "efficientnet_lite0",
    finetune: FinetuneOption = None,
    seed: SeedOption = 0,
    name: NameOption = None,
    max_epochs: MaxEpochsOption = None,
    again: AgainOption = False,
    json: JsonOption = False,
) -> None:
    """Train the image tower: slices of the charge density, nothing else.

    Where the default split is made now, its crystals have a text of the text level as well, so that all
    models can share it; with `--text-level none` they need not.

    \b
    Examples:
      ecdreg train image
      ecdreg train image --recipe imported --text-level none
      ecdreg train image --target k_vrh --recipe metric-111
      ecdreg train image --seed 1 --finetune
    """
    options = {"recipe": recipe, "image_backbone": image_backbone}
    _train(
        _Request(("image",), target, split, recipe, text_level, seed, again, json, finetune, name, max_epochs, options)
    )


def text(
    target: TargetOption = None,
    split: SplitOption = "default",
    recipe: RecipeOption = "metric",
    text_level: TextLevelOption = "keywords",
    text_backbone: TextBackboneOption = "minilm",
    finetune: FinetuneOption = None,
    seed: SeedOption = 0,
    name: NameOption = None,
    max_epochs: MaxEpochsOption = None,
    again: AgainOption = False,
    json: JsonOption = False,
) -> None:
    """Train the text tower: descriptions of the structure, nothing else.

    Where the default split is made now, its crystals have an image of the recipe as well, so that all
    models can share it; with `--recipe none` they need not.

    \b
    Examples:
      ecdreg train text
      ecdreg train text --recipe none
      ecdreg train text --target efermi --text-level all
    """
    options = {"text_level": text_level, "text_backbone": text_backbone}
    _train(
        _Request(("text",), target, split, recipe, text_level, seed, again, json, finetune, name, max_epochs, options)
    )


def stacked(
    target: TargetOption = None,
    split: SplitOption = "default",
    recipe: RecipeOption = "metric",
    text_level: TextLevelOption = "keywords",
    image_backbone: ImageBackboneOption = "efficientnet_lite0",
    text_backbone: TextBackboneOption = "minilm",
    stack_features: StackFeaturesOption = None,
    finetune: FinetuneOption = None,
    seed: SeedOption = 0,
    name: NameOption = None,
    max_epochs: MaxEpochsOption = None,
    again: AgainOption = False,
    json: JsonOption = False,
) -> None:
    """Train the stacked model: image and text towers, joined at their penultimate layers.

    Towers of the same split, target, fold, seed and configuration are reused; those that are missing are
    trained first, as models of their own.

    \b
    Examples:
      ecdreg train stacked
      ecdreg train stacked --target k_vrh --target efermi --split paper
      ecdreg train stacked --stack-features out-of-fold --name stacked-out-of-fold
    """
    options = {
        "recipe": recipe,
        "text_level": text_level,
        "image_backbone": image_backbone,
        "text_backbone": text_backbone,
    }
    if stack_features is not None:
        options["stack_features"] = stack_features
    _train(
        _Request(
            ("stacked",), target, split, recipe, text_level, seed, again, json, finetune, name, max_epochs, options
        )
    )


def baseline(
    target: TargetOption = None,
    split: SplitOption = "default",
    recipe: RecipeOption = "metric",
    text_level: TextLevelOption = "keywords",
    seed: SeedOption = 0,
    again: AgainOption = False,
    json: JsonOption = False,
) -> None:
    """Train the baselines: the mean, and trees on the composition alone (Magpie features).

    Where the default split is made now, its crystals have an image of the recipe and a text of the text
    level, so that all models can share it; with `none` they need not.

    \b
    Examples:
      ecdreg train baseline
      ecdreg train baseline --recipe none --text-level none
      ecdreg train baseline --target k_vrh --seed 1
    """
    _train(_Request(("baseline-mean", "baseline-magpie"), target, split, recipe, text_level, seed, again, json))


def leaderboard(
    target: TargetOption = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Only models of this split; all by default.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show how the models compare, best in cross-validation first, baselines beside them.

    R2 and RMSE are means over folds and runs with their standard deviation; RMSE is in the unit of the
    target. The same rows are in the view v_leaderboard.

    \b
    Examples:
      ecdreg leaderboard
      ecdreg leaderboard --target k_vrh --split default --json
    """
    from cli.sessions import open_session
    from registry.properties import property_named

    for name in target or ():
        property_named(name)
    with open_session() as session:
        rows = _leaderboard(session, target, split)
    if json:
        output.json(rows)
    elif rows:
        _show(rows)
    else:
        output.note("no finished models yet; `ecdreg train stacked` makes some")


def _train(asked: _Request) -> None:
    from registry.model_store import check_model_name
    from registry.properties import TARGETS, property_named

    targets = list(dict.fromkeys(asked.targets or TARGETS))
    for target in targets:
        property_named(target)
    # Options are refused before a split is made by them.
    if asked.name is not None:
        check_model_name(asked.name)
    if asked.options.get("recipe") == "none":
        raise typer.BadParameter("--recipe none leaves nothing to look at; it is for `train text` and `train baseline`")
    _check_text_level(asked)
    configs = [config for target in targets for config in _configs(asked, target)]
    engine = open_engine()
    try:
        from registry.database import session_scope

        for target in targets:
            with session_scope(engine) as session:
                _announce(session, asked, target)
        results = _run(engine, asked, configs)
        with session_scope(engine) as session:
            rows = _leaderboard(session, targets, asked.split)
    finally:
        engine.dispose()
    if asked.json:
        output.json({"experiments": [asdict(result) for result in results], "leaderboard": rows})
        return
    for result in results:
        if result.outcome == "unchanged":
            output.note(f"{result.model} had been trained already; --again trains a new version")
    _show(rows)
    if not asked.kinds[0].startswith("baseline"):
        called = asked.name or asked.kinds[0]
        output.note(
            f"go on: ecdreg predict {called} ID · ecdreg similar ID ·"
            f" ecdreg report {called}:{targets[0]} -o report.html"
        )


def _run(engine: Engine, asked: _Request, configs: Sequence[TrainConfig]) -> list[ExperimentResult]:
    from train.experiment import run_experiment
    from train.features import FeatureCache

    settings = environment()
    with output.progress() as progress:
        cache = FeatureCache(engine, models=settings.models, progress=progress)
        return [
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


def _check_text_level(asked: _Request) -> None:
    from train.config import TrainConfig

    # A model that reads no text has no such option, but the split may be made with it.
    if asked.text_level != "none":
        TrainConfig.from_dict({"kind": "text", "target": "k_vrh", "text_level": asked.text_level})


def _configs(asked: _Request, target: str) -> list[TrainConfig]:
    from train.config import TrainConfig
    from train.devices import has_accelerator

    configs = []
    for kind in asked.kinds:
        config = TrainConfig.from_dict({"kind": kind, "target": target, **asked.options})
        if not config.is_baseline:
            finetune = has_accelerator() if asked.finetune is None else asked.finetune
            config = replace(config, finetune_enabled=finetune)
        if asked.max_epochs is not None:
            config = replace(
                config,
                readout=replace(config.readout, max_epochs=asked.max_epochs),
                finetune=replace(config.finetune, max_epochs=asked.max_epochs),
            )
        configs.append(config)
    return configs


def _announce(session: Session, asked: _Request, target: str) -> None:
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


def _make_default(session: Session, asked: _Request, target: str) -> Split:
    from registry.errors import NotFoundError
    from registry.image_recipes import find_recipe
    from registry.splits import ensure_default_split

    recipe, text_level = none_or(asked.recipe), none_or(asked.text_level)
    if recipe is not None and not {"image", "stacked"} & set(asked.kinds):
        # All kinds share one split where they can; without any image there is none to share.
        try:
            find_recipe(session, recipe)
        except NotFoundError:
            output.note(f"no images of recipe {recipe!r}: the split for {target} does without")
            recipe = None
    return ensure_default_split(session, target, recipe=recipe, text_level=text_level)


def _leaderboard(session: Session, targets: Sequence[str] | None, split: str | None) -> list[dict[str, Any]]:
    from sqlalchemy import text as sql

    from registry.properties import TARGETS

    found = session.execute(
        sql(
            "SELECT * FROM v_leaderboard WHERE (CAST(:split AS text) IS NULL OR split = :split)"
            " AND (CAST(:targets AS text[]) IS NULL OR target = ANY(CAST(:targets AS text[])))"
        ),
        {"split": split, "targets": list(targets) if targets else None},
    ).mappings()
    rows = [dict(row) for row in found]
    order = {target: place for place, target in enumerate(TARGETS)}
    return sorted(rows, key=lambda row: (order.get(row["target"], len(order)), row["target"], row["split"]))


def _show(rows: Sequence[dict[str, Any]]) -> None:
    for target, split, unit in dict.fromkeys((row["target"], row["split"], row["unit"]) for row in rows):
        chosen = [row for row in rows if (row["target"], row["split"]) == (target, split)]
        output.table(
            [
                {
                    "model": row["model"],
                    "version": row["version"],
                    "runs": row["n_runs"],
                    "cv R2": _with_sd(row["cv_r2"], row["cv_r2_sd"]),
                    f"cv RMSE [{unit}]": _with_sd(row["cv_rmse"], row["cv_rmse_sd"]),
                    "holdout R2": _with_sd(row["holdout_r2"], row["holdout_r2_sd"]),
                    f"holdout RMSE [{unit}]": _with_sd(row["holdout_rmse"], row["holdout_rmse_sd"]),
                    "n cv / holdout": f"{row['n_cv']} / {row['n_holdout'] or 0}",
                }
                for row in chosen
            ],
            title=f"{target}, split {split!r}",
        )
        output.line()


def _with_sd(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return ""
    digits = 3 if abs(mean) < 10 else 1
    return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if sd is not None else "")
