"""``ecdreg train``: towers, stacks and baselines on a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from cli import output
from cli.options.common import (
    JsonOption,
    RecipeOption,
    SeedOption,
    SplitOption,
    TargetOption,
    TextLevelOption,
    command_group,
)
from cli.options.training import (
    AgainOption,
    AugmentOption,
    AverageOption,
    ClipOption,
    CompositionOption,
    ConfigOption,
    DensityFeaturesOption,
    FinetuneOption,
    ImageBackboneOption,
    ImageSizeOption,
    ImageTowerOption,
    JoinOption,
    MaxEpochsOption,
    MultiTaskOption,
    NameOption,
    RegressorOption,
    StackFeaturesOption,
    TextBackboneOption,
    TowerRegressorOption,
    TowersOption,
    ViewsOption,
    view_options,
)
from ecdreg.training import Request, train

__all__ = ["group"]

group = command_group("Train models on a split; every leaderboard shows the baselines beside them.")


@group.command("image")
def image(
    target: TargetOption = None,
    split: SplitOption = "default",
    recipe: RecipeOption = "metric",
    text_level: TextLevelOption = "keywords",
    image_backbone: ImageTowerOption = None,
    image_size: ImageSizeOption = None,
    views: ViewsOption = None,
    average_views: AverageOption = True,
    augment: AugmentOption = False,
    regressor: RegressorOption = None,
    finetune: FinetuneOption = None,
    config: ConfigOption = None,
    multi_task: MultiTaskOption = False,
    seed: SeedOption = 0,
    name: NameOption = None,
    max_epochs: MaxEpochsOption = None,
    again: AgainOption = False,
    json: JsonOption = False,
) -> None:
    """Train the image tower: slices of the charge density, nothing else.

    By default histograms and fixed filters of the pixels in physical units, read by kernel ridge regression; any
    pre-trained backbone is trained as published, with a dense readout.

    Where the default split is made now, its crystals have a text of the text level as well, so that all
    models can share it; with `--text-level none` they need not.

    \b
    Examples:
      ecdreg train image
      ecdreg train image --recipe imported --text-level none
      ecdreg train image --target k_vrh --recipe metric-111
      ecdreg train image --seed 1 --finetune
      ecdreg train image --image-backbone inception_v3 --name image-inception
      ecdreg train image --image-backbone efficientnet_lite0 --regressor network --name image-lite0
      ecdreg train image --recipe metric-views --name image-views
    """
    from train.config.defaults import recommended

    options = _given(recipe=recipe, image_backbone=image_backbone, image_size=image_size, image_regressor=regressor)
    # The pixel statistics have nothing in them to fine-tune.
    options = recommended("image", options, dense=bool(finetune) or multi_task or config is not None)
    options |= view_options(recipe, views, average=average_views, augment=augment)
    train(
        Request(
            ("image",),
            target,
            split,
            recipe,
            text_level,
            seed,
            again,
            json,
            finetune,
            name,
            max_epochs,
            options,
            config,
            multi_task=multi_task,
        )
    )


@group.command("text")
def text(
    target: TargetOption = None,
    split: SplitOption = "default",
    recipe: RecipeOption = "metric",
    text_level: TextLevelOption = "keywords",
    text_backbone: TextBackboneOption = "minilm",
    regressor: RegressorOption = None,
    finetune: FinetuneOption = None,
    config: ConfigOption = None,
    multi_task: MultiTaskOption = False,
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
      ecdreg train text --target efermi --config tuned/text-efermi.toml
    """
    options = _given(text_level=text_level, text_backbone=text_backbone, text_regressor=regressor)
    train(
        Request(
            ("text",),
            target,
            split,
            recipe,
            text_level,
            seed,
            again,
            json,
            finetune,
            name,
            max_epochs,
            options,
            config,
            multi_task=multi_task,
        )
    )


@group.command("composition")
def composition(
    target: TargetOption = None,
    split: SplitOption = "default",
    recipe: RecipeOption = "metric",
    text_level: TextLevelOption = "keywords",
    features: CompositionOption = None,
    regressor: RegressorOption = None,
    config: ConfigOption = None,
    multi_task: MultiTaskOption = False,
    seed: SeedOption = 0,
    name: NameOption = None,
    max_epochs: MaxEpochsOption = None,
    again: AgainOption = False,
    json: JsonOption = False,
) -> None:
    """Train the composition tower: the formula, nothing else.

    Where the default split is made now, its crystals have an image of the recipe and a text of the text
    level, so that all models can share it; with `none` they need not.

    \b
    Examples:
      ecdreg train composition
      ecdreg train composition --regressor trees --target efermi
    """
    options = _given(composition_backbone=features, composition_regressor=regressor)
    if config is None:
        from train.config.defaults import recommended

        options = recommended("composition", options, dense=multi_task)
    train(
        Request(
            ("composition",),
            target,
            split,
            recipe,
            text_level,
            seed,
            again,
            json,
            None,
            name,
            max_epochs,
            options,
            config,
            multi_task=multi_task,
        )
    )


@group.command("density")
def density(
    target: TargetOption = None,
    split: SplitOption = "default",
    recipe: RecipeOption = "metric",
    text_level: TextLevelOption = "keywords",
    features: DensityFeaturesOption = None,
    regressor: RegressorOption = None,
    config: ConfigOption = None,
    multi_task: MultiTaskOption = False,
    seed: SeedOption = 0,
    name: NameOption = None,
    max_epochs: MaxEpochsOption = None,
    again: AgainOption = False,
    json: JsonOption = False,
) -> None:
    """Train the density tower: the charge density in three dimensions, described by its physics.

    Where the default split is made now, its crystals have an image of the recipe and a text of the text
    level, so that all models can share it; with `none` they need not.

    \b
    Examples:
      ecdreg train density
      ecdreg train density --target k_vrh --regressor network
    """
    options = _given(density_backbone=features, density_regressor=regressor)
    if config is None:
        from train.config.defaults import recommended

        options = recommended("density", options, dense=multi_task)
    train(
        Request(
            ("density",),
            target,
            split,
            recipe,
            text_level,
            seed,
            again,
            json,
            None,
            name,
            max_epochs,
            options,
            config,
            multi_task=multi_task,
        )
    )


@group.command("stacked")
def stacked(
    target: TargetOption = None,
    split: SplitOption = "default",
    towers: TowersOption = None,
    join: JoinOption = None,
    regressor: TowerRegressorOption = None,
    recipe: RecipeOption = "metric",
    text_level: TextLevelOption = "keywords",
    image_backbone: ImageBackboneOption = "efficientnet_lite0",
    image_size: ImageSizeOption = None,
    views: ViewsOption = None,
    average_views: AverageOption = True,
    augment: AugmentOption = False,
    text_backbone: TextBackboneOption = "minilm",
    composition_features: CompositionOption = None,
    density_features: DensityFeaturesOption = None,
    stack_features: StackFeaturesOption = None,
    finetune: FinetuneOption = None,
    config: ConfigOption = None,
    multi_task: MultiTaskOption = False,
    seed: SeedOption = 0,
    name: NameOption = None,
    max_epochs: MaxEpochsOption = None,
    again: AgainOption = False,
    json: JsonOption = False,
) -> None:
    """Train the stacked model: towers of several modalities, joined.

    By default one Gaussian process reads the features of all four towers: in cross-validation, nothing was
    better. With `--join network` the image and text towers are joined at their penultimate layers, as published.
    Towers of the same split, target, fold, seed and configuration are reused; those that are missing are
    trained first, as models of their own.

    \b
    Examples:
      ecdreg train stacked
      ecdreg train stacked --target k_vrh --target efermi --split paper
      ecdreg train stacked --towers image,text --join network --name published
      ecdreg train stacked --towers composition,density --join ridge --regressor density=trees
      ecdreg train stacked --stack-features out-of-fold --name stacked-out-of-fold
    """
    from train.config.config import TrainConfig
    from train.config.defaults import recommended

    asked = _given(stack_towers=_names(towers), join=join, stack_features=stack_features)
    if config is None:
        asked = recommended("stacked", asked, dense=multi_task)
    own = {
        "image": {
            "recipe": recipe,
            "image_backbone": image_backbone,
            "image_size": image_size,
            **view_options(recipe, views, average=average_views, augment=augment),
        },
        "text": {"text_level": text_level, "text_backbone": text_backbone},
        "composition": {"composition_backbone": composition_features},
        "density": {"density_backbone": density_features},
    }
    used = [own[tower] for tower in asked.get("stack_towers", TrainConfig.stack_towers) if tower in own]
    options = asked | _given(**{name: value for values in used for name, value in values.items()})
    options |= {f"{tower}_regressor": value for tower, value in _assignments(regressor).items()}
    train(
        Request(
            ("stacked",),
            target,
            split,
            recipe,
            text_level,
            seed,
            again,
            json,
            finetune,
            name,
            max_epochs,
            options,
            config,
            multi_task=multi_task,
        )
    )


@group.command("clip")
def clip(
    target: TargetOption = None,
    split: SplitOption = "default",
    clip: ClipOption = None,
    recipe: RecipeOption = "metric",
    text_level: TextLevelOption = "keywords",
    image_backbone: Annotated[
        str | None, typer.Option("--image-backbone", metavar="NAME", help="Image backbone of the dual encoder.")
    ] = None,
    image_size: ImageSizeOption = None,
    text_backbone: Annotated[
        str | None, typer.Option("--text-backbone", metavar="NAME", help="Text backbone of the dual encoder.")
    ] = None,
    finetune: FinetuneOption = None,
    config: ConfigOption = None,
    seed: SeedOption = 0,
    name: NameOption = None,
    max_epochs: MaxEpochsOption = None,
    again: AgainOption = False,
    json: JsonOption = False,
) -> None:
    """Train a CLIP, or the dual encoder in its place: images and texts in one space, and a linear layer on both.

    A CLIP is named by --clip: a hub id, or a folder in transformers' layout. Where none is named, a dual
    encoder stands in: two backbones that never saw each other, aligned by the contrastive loss on the
    training rows alone. Crystals can be found by a sentence in either space:
    `ecdreg similar --text "..." --encoder dual-encoder:k_vrh@1`.

    \b
    Examples:
      ecdreg train clip
      ecdreg train clip --clip openai/clip-vit-base-patch32 --text-level all --recipe paper
      ecdreg train clip --target k_vrh --text-level all
    """
    if clip is None:
        kind = "dual-encoder"
        options = _given(image_backbone=image_backbone, image_size=image_size, text_backbone=text_backbone)
        output.note("no --clip is named: this trains the dual encoder, which stands in for a CLIP and is not one")
    else:
        kind, options = "clip", {"clip": clip}
        given = _given(image_backbone=image_backbone, image_size=image_size, text_backbone=text_backbone)
        if given:
            option = next(iter(given)).replace("_", "-")
            raise typer.BadParameter(f"--{option} is of the dual encoder, and --clip {clip} brings its own; give one")
    options |= {"recipe": recipe, "text_level": text_level}
    train(
        Request(
            (kind,), target, split, recipe, text_level, seed, again, json, finetune, name, max_epochs, options, config
        )
    )


@group.command("baseline")
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
    train(Request(("baseline-mean", "baseline-magpie"), target, split, recipe, text_level, seed, again, json))


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _names(value: str | None) -> list[str] | None:
    return None if value is None else [name.strip() for name in value.split(",") if name.strip()]


def _assignments(values: Sequence[str] | None) -> dict[str, str]:
    """``tower=regressor`` pairs, checked for their form and their towers."""
    from train.config.config import TOWERS

    pairs = {}
    for value in values or ():
        tower, separator, name = value.partition("=")
        if not separator or tower not in TOWERS or not name:
            raise typer.BadParameter(f"--regressor {value}: give TOWER=NAME with a tower of {', '.join(TOWERS)}")
        pairs[tower] = name
    return pairs
