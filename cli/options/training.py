"""Options of ``ecdreg train ...``, shared by its commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "AgainOption",
    "AugmentOption",
    "AverageOption",
    "ClipOption",
    "CompositionOption",
    "ConfigOption",
    "DensityFeaturesOption",
    "FinetuneOption",
    "ImageBackboneOption",
    "ImageSizeOption",
    "ImageTowerOption",
    "JoinOption",
    "MaxEpochsOption",
    "MultiTaskOption",
    "NameOption",
    "RegressorOption",
    "StackFeaturesOption",
    "TextBackboneOption",
    "TowerRegressorOption",
    "TowersOption",
    "ViewsOption",
    "view_options",
]

ImageBackboneOption = Annotated[
    str, typer.Option("--image-backbone", metavar="NAME", help="Image backbone: a name, a folder or a hub id.")
]
ImageTowerOption = Annotated[
    str | None,
    typer.Option(
        "--image-backbone",
        metavar="NAME",
        help="Image backbone: a name, a folder or a hub id; pixel_statistics with the regressor kernel where none is"
        " given, but efficientnet_lite0 with a dense readout for --finetune, --multi-task and --config.",
    ),
]
TextBackboneOption = Annotated[
    str, typer.Option("--text-backbone", metavar="NAME", help="Text backbone: a name, a folder or a hub id.")
]
ImageSizeOption = Annotated[
    int | None,
    typer.Option(
        "--image-size", min=32, help="Pixels a side that the image backbone sees. [inception_v3: 299, others: 160]"
    ),
]
ClipOption = Annotated[
    str | None,
    typer.Option(
        "--clip",
        metavar="NAME",
        help="A CLIP: a hub id such as openai/clip-vit-base-patch32, or a folder. Without it, the dual encoder.",
    ),
]
FinetuneOption = Annotated[
    bool | None,
    typer.Option("--finetune/--no-finetune", help="Fine-tune the backbones; by default only where there is a GPU."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="TOML with fields of the configuration, as `ecdreg tune` writes it."),
]
NameOption = Annotated[str | None, typer.Option("--name", metavar="NAME", help="What to call the model.")]
MultiTaskOption = Annotated[
    bool, typer.Option("--multi-task", help="Dense readouts learn the other targets too, from the same training rows.")
]
MaxEpochsOption = Annotated[
    int | None, typer.Option("--max-epochs", min=1, help="Epochs of each phase at most. [clip: 800, others: 700]")
]
AgainOption = Annotated[bool, typer.Option("--again", help="Train a new version even if the same one is finished.")]
ViewsOption = Annotated[
    int | None,
    typer.Option(
        "--views",
        min=1,
        help="Views of a crystal that the recipe's channels hold: training draws among them. By default those of the"
        " recipe, as 4 of metric-views; 1 makes one picture of all channels.",
    ),
]
AverageOption = Annotated[
    bool,
    typer.Option("--average-views/--first-view", help="Whether predictions look at all views or at the first alone."),
]
AugmentOption = Annotated[
    bool, typer.Option("--augment", help="While fine-tuning, turn pictures by quarters and mirror them, at random.")
]
RegressorOption = Annotated[
    str | None,
    typer.Option(
        "--regressor",
        metavar="NAME",
        help="What the tower puts on its features: network, the dense readout, or a regressor such as ridge or trees.",
    ),
]
TowersOption = Annotated[
    str | None,
    typer.Option("--towers", metavar="A,B", help="Towers of the stack: any of image, text, composition, density."),
]
JoinOption = Annotated[
    str | None,
    typer.Option(
        "--join",
        metavar="NAME",
        help="How towers are joined: gaussian-process, on the features of all (default); network, a readout on their"
        " penultimate layers, as published; or a regressor on what they say of rows that they have not seen.",
    ),
]
TowerRegressorOption = Annotated[
    list[str] | None,
    typer.Option("--regressor", metavar="TOWER=NAME", help="Regressor of a tower; may be given more than once."),
]
CompositionOption = Annotated[
    str | None, typer.Option("--composition-features", metavar="NAME", help="Features of a composition.")
]
DensityFeaturesOption = Annotated[
    str | None, typer.Option("--density-features", metavar="NAME", help="Features of a charge density.")
]
StackFeaturesOption = Annotated[
    str | None,
    typer.Option(
        "--stack-features",
        metavar="WHICH",
        help="Tower features that the stack is fitted to: in-sample (default) or out-of-fold.",
    ),
]


def view_options(recipe: str, count: int | None, *, average: bool, augment: bool) -> dict[str, Any]:
    """Fields of a configuration for the views of a recipe, where they are not the usual ones.

    Parameters
    ----------
    recipe
        Of the images; one that holds several views says how many.
    count
        Views that were asked for; None: those of the recipe.
    average, augment
        Whether predictions look at all views, and whether pictures are turned and mirrored in training.
    """
    if count is None and recipe != "metric":
        from ingest.slices.recipes import RECIPES

        # Imported pictures, and recipes that somebody else has ingested, are one view.
        if recipe in RECIPES:
            known = RECIPES[recipe]
            count = len(getattr(getattr(known, "of", known), "views", (0,)))
    options: dict[str, Any] = {"image_views": count} if count not in (None, 1) else {}
    return options | ({} if average else {"image_average": False}) | ({"image_augment": True} if augment else {})
