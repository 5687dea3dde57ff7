"""``ecdreg train``: towers, stacks and baselines on a split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib.metadata import entry_points
from typing import Annotated, Any

import typer

from cli import output
from cli.commands.leaderboard import print_leaderboard
from cli.connections import open_registry
from cli.groups import command_group
from cli.options.arguments import none_or
from cli.options.sets import with_option_sets
from cli.options.training import (
    CompositionOption,
    DensityFeaturesOption,
    FinetuneOption,
    ImageBackboneOption,
    ImageOptions,
    ImageSizeOption,
    ModelRunOptions,
    RegressorOption,
    RunOptions,
    TextBackboneOption,
    TowerRunOptions,
)

__all__ = ["group"]

group = command_group("Train models on a split, with the baselines beside them.")


@group.command()
@with_option_sets
def image(
    run: RunOptions,
    model: TowerRunOptions,
    images: ImageOptions,
    regressor: RegressorOption = None,
    finetune: FinetuneOption = None,
) -> None:
    """Train the image tower: slices of the charge density.

    By default histograms and fixed filters of the pixels in physical units, read by kernel ridge regression; a
    pre-trained backbone follows the paper's protocol, with a dense readout.

    The default split, where it is made now, requires a text of the text level as well, so that all models can share
    it; `--text-level none` does not.

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
    _train("image", run, model, images, regressors=_only("image", regressor), finetune=finetune)


@group.command()
@with_option_sets
def text(
    run: RunOptions,
    model: TowerRunOptions,
    text_backbone: TextBackboneOption = None,
    regressor: RegressorOption = None,
    finetune: FinetuneOption = None,
) -> None:
    """Train the text tower: descriptions of the structure.

    The default split, where it is made now, requires an image of the recipe as well, so that all models can share it;
    `--recipe none` does not.

    \b
    Examples:
      ecdreg train text
      ecdreg train text --recipe none
      ecdreg train text --target efermi --text-level all
      ecdreg train text --target efermi --config tuned/text-efermi.toml
    """
    options = {"text_backbone": text_backbone, "regressors": _only("text", regressor), "finetune": finetune}
    _train("text", run, model, **options)


@group.command()
@with_option_sets
def composition(
    run: RunOptions,
    model: TowerRunOptions,
    features: CompositionOption = None,
    regressor: RegressorOption = None,
) -> None:
    """Train the composition tower: the formula.

    The default split, where it is made now, requires an image of the recipe and a text of the text level, so that all
    models can share it; `none` does not.

    \b
    Examples:
      ecdreg train composition
      ecdreg train composition --regressor trees --target efermi
    """
    _train("composition", run, model, composition_features=features, regressors=_only("composition", regressor))


@group.command()
@with_option_sets
def density(
    run: RunOptions,
    model: TowerRunOptions,
    features: DensityFeaturesOption = None,
    regressor: RegressorOption = None,
) -> None:
    """Train the density tower: physical features of the charge density in three dimensions.

    The default split, where it is made now, requires an image of the recipe and a text of the text level, so that all
    models can share it; `none` does not.

    \b
    Examples:
      ecdreg train density
      ecdreg train density --target k_vrh --regressor network
    """
    _train("density", run, model, density_features=features, regressors=_only("density", regressor))


@group.command()
@with_option_sets
def stacked(
    run: RunOptions,
    model: TowerRunOptions,
    images: ImageOptions,
    towers: Annotated[
        str | None,
        typer.Option("--towers", metavar="A,B", help="Towers of the stack: any of image, text, composition, density."),
    ] = None,
    join: Annotated[
        str | None,
        typer.Option(
            "--join",
            metavar="NAME",
            help="How the towers are joined: gaussian-process, on the features of all (default); network, a readout on"
            " their penultimate layers, as published; or a regressor on their out-of-fold predictions.",
        ),
    ] = None,
    regressor: Annotated[
        list[str] | None,
        typer.Option("--regressor", metavar="TOWER=NAME", help="Regressor of a tower; may be given more than once."),
    ] = None,
    text_backbone: TextBackboneOption = None,
    composition_features: CompositionOption = None,
    density_features: DensityFeaturesOption = None,
    stack_features: Annotated[
        str | None,
        typer.Option(
            "--stack-features",
            metavar="WHICH",
            help="Tower features that the stack is fitted to: in-sample (default) or out-of-fold.",
        ),
    ] = None,
    finetune: FinetuneOption = None,
) -> None:
    """Train the stacked model: towers of several modalities, joined.

    By default one Gaussian process reads the features of all four towers: in cross-validation, nothing was better.
    With `--join network` the image and text towers are joined at their penultimate layers: the paper's protocol, by
    default with substitute backbones (frozen EfficientNet-Lite0 and MiniLM). Towers of the same split, target, fold,
    seed and configuration are reused; missing ones are trained first, as models of their own.

    \b
    Examples:
      ecdreg train stacked
      ecdreg train stacked --target k_vrh --target efermi --split paper
      ecdreg train stacked --towers image,text --join network --name paper-protocol
      ecdreg train stacked --towers composition,density --join ridge --regressor density=trees
      ecdreg train stacked --stack-features out-of-fold --name stacked-out-of-fold
    """
    _train(
        "stacked",
        run,
        model,
        images,
        towers=None if towers is None else tuple(name.strip() for name in towers.split(",") if name.strip()),
        join=join,
        regressors=_by_tower(regressor),
        text_backbone=text_backbone,
        composition_features=composition_features,
        density_features=density_features,
        tower_features=stack_features,
        finetune=finetune,
    )


@group.command()
@with_option_sets
def clip(
    run: RunOptions,
    model: ModelRunOptions,
    clip: Annotated[
        str | None,
        typer.Option(
            "--clip",
            metavar="NAME",
            help="A CLIP: a hub id such as openai/clip-vit-base-patch32, or a folder. Without it, the dual encoder.",
        ),
    ] = None,
    image_backbone: ImageBackboneOption = None,
    image_size: ImageSizeOption = None,
    text_backbone: TextBackboneOption = None,
    finetune: FinetuneOption = None,
) -> None:
    """Train a CLIP, or the dual encoder in its place: images and texts in one space, and a linear layer on both.

    --clip names a CLIP: a hub id, or a folder in transformers' layout. Without it a dual encoder is trained: two
    backbones that were trained apart, aligned by the contrastive loss on the training rows alone. In both spaces a
    sentence finds crystals: `ecdreg similar --text "..." --encoder dual-encoder:k_vrh@1`.

    \b
    Examples:
      ecdreg train clip
      ecdreg train clip --clip openai/clip-vit-base-patch32 --text-level all --recipe paper
      ecdreg train clip --target k_vrh --text-level all
    """
    backbones = {"image_backbone": image_backbone, "image_size": image_size, "text_backbone": text_backbone}
    _train("clip", run, model, clip=clip, finetune=finetune, **backbones)


@group.command()
@with_option_sets
def baseline(run: RunOptions) -> None:
    """Train the baselines: the mean, and trees on the composition alone (Magpie features).

    The default split, where it is made now, requires an image of the recipe and a text of the text level, so that all
    models can share it; `none` does not.

    \b
    Examples:
      ecdreg train baseline
      ecdreg train baseline --recipe none --text-level none
      ecdreg train baseline --target k_vrh --seed 1
    """
    _train("baseline", run, ModelRunOptions())


def _added(kind: str) -> Callable[..., None]:
    """Command of a modality or a model kind that another package adds."""

    @with_option_sets
    def command(run: RunOptions, model: TowerRunOptions) -> None:
        _train(kind, run, model)

    command.__doc__ = f"Train {kind}, which another package adds; --config gives the fields of its configuration."
    return command


for _entry in (*entry_points(group="ecdreg.modalities"), *entry_points(group="ecdreg.model_kinds")):
    group.command(_entry.name)(_added(_entry.name))


def _train(kind: str, run: RunOptions, model: ModelRunOptions, *sets: object, **options: Any) -> None:
    """Train models of a kind with the options of the command, and print the leaderboard."""
    from ecdreg.models.options import ModelOptions

    known = {field.name for field in fields(ModelOptions)}
    given = {name: value for one in (model, *sets) for name, value in vars(one).items() if name in known}
    with output.progress() as progress:
        result = open_registry().train(
            kind,
            targets=run.target,
            split=run.split,
            recipe=none_or(run.recipe),
            text_level=none_or(run.text_level),
            seed=run.seed,
            name=model.name,
            config=model.config,
            again=run.again,
            progress=progress,
            **given,
            **options,
        )
    for warning in result.warnings:
        output.warn(warning)
    if run.json:
        output.json(result.to_dict())
        return
    print_leaderboard(result.leaderboard)
    if kind != "baseline":
        first = result.experiments[0]
        output.note(
            f"next: ecdreg predict {first.name} ID · ecdreg similar ID ·"
            f" ecdreg report {first.name}:{first.target} -o report.html"
        )


def _only(tower: str, regressor: str | None) -> Mapping[str, str]:
    return {} if regressor is None else {tower: regressor}


def _by_tower(values: Sequence[str] | None) -> Mapping[str, str]:
    """Regressors by tower, of ``TOWER=NAME`` pairs."""
    pairs = {}
    for value in values or ():
        tower, separator, name = value.partition("=")
        if not separator or not tower or not name:
            raise typer.BadParameter(f"--regressor {value}: give TOWER=NAME, for instance density=trees")
        pairs[tower] = name
    return pairs
