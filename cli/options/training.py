"""Options of ``ecdreg train ...``, in sets that its commands share.

Fields that are named as those of :class:`ecdreg.models.options.ModelOptions` are passed to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cli.options.arguments import JsonOption, RecipeOption, SeedOption, SplitOption, TargetOption, TextLevelOption

__all__ = [
    "CompositionOption",
    "DensityFeaturesOption",
    "FinetuneOption",
    "ImageBackboneOption",
    "ImageOptions",
    "ImageSizeOption",
    "ModelRunOptions",
    "RegressorOption",
    "RunOptions",
    "TextBackboneOption",
    "TowerRunOptions",
]

ImageBackboneOption = Annotated[
    str | None,
    typer.Option(
        "--image-backbone",
        metavar="NAME",
        help="Image backbone: a name, a folder or a hub id. By default `train image` reads pixel_statistics with the"
        " regressor kernel, and efficientnet_lite0 with a dense readout for --finetune, --multi-task and --config; all"
        " other models read efficientnet_lite0.",
    ),
]
ImageSizeOption = Annotated[
    int | None,
    typer.Option(
        "--image-size", min=32, help="Pixels a side that the image backbone reads. [inception_v3: 299, others: 160]"
    ),
]
TextBackboneOption = Annotated[
    str | None,
    typer.Option("--text-backbone", metavar="NAME", help="Text backbone: a name, a folder or a hub id. [minilm]"),
]
CompositionOption = Annotated[
    str | None, typer.Option("--composition-features", metavar="NAME", help="Features of a composition.")
]
DensityFeaturesOption = Annotated[
    str | None, typer.Option("--density-features", metavar="NAME", help="Features of a charge density.")
]
FinetuneOption = Annotated[
    bool | None,
    typer.Option("--finetune/--no-finetune", help="Fine-tune the backbones; by default only where there is a GPU."),
]
MultiTaskOption = Annotated[
    bool,
    typer.Option("--multi-task", help="Train dense readouts on the other targets too, with the same training rows."),
]
RegressorOption = Annotated[
    str | None,
    typer.Option(
        "--regressor",
        metavar="NAME",
        help="Model on the features of the tower: network, the dense readout, or a regressor such as ridge or trees.",
    ),
]


@dataclass(frozen=True)
class RunOptions:
    """Options of every training."""

    target: TargetOption = None
    split: SplitOption = "default"
    recipe: RecipeOption = "metric"
    text_level: TextLevelOption = "keywords"
    seed: SeedOption = 0
    again: Annotated[bool, typer.Option("--again", help="Train a new version even if the same one is finished.")] = (
        False
    )
    json: JsonOption = False


@dataclass(frozen=True)
class ModelRunOptions:
    """Options of every training of a model with a configuration of its own."""

    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="TOML with fields of the configuration, as `ecdreg tune` writes it; they take precedence.",
        ),
    ] = None
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the model. [its kind]")] = None
    max_epochs: Annotated[
        int | None,
        typer.Option("--max-epochs", min=1, help="Epochs of each phase at most. [clip: 800, others: 700]"),
    ] = None


@dataclass(frozen=True)
class TowerRunOptions(ModelRunOptions):
    """Options of every training of towers and stacks."""

    multi_task: MultiTaskOption = False


@dataclass(frozen=True)
class ImageOptions:
    """Options of a model with an image tower."""

    image_backbone: ImageBackboneOption = None
    image_size: ImageSizeOption = None
    views: Annotated[
        int | None,
        typer.Option(
            "--views",
            min=1,
            help="Views of a crystal that the channels of an image hold; training draws one of them. By default those"
            " of the recipe, for instance 4 of metric-views; 1 makes one image of all channels.",
        ),
    ] = None
    average_views: Annotated[
        bool | None,
        typer.Option(
            "--average-views/--first-view",
            help="Predict the mean over all views, or from the first alone. [--average-views]",
        ),
    ] = None
    augment: Annotated[
        bool | None,
        typer.Option("--augment", help="Rotate images by quarter turns and mirror them at random in fine-tuning."),
    ] = None
