"""``ecdreg reference``: reference models on the rows of a split, with their training data."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import output
from cli.connections import open_registry
from cli.groups import command_group
from cli.options.arguments import JsonOption, TargetOption
from ecdreg.models.reference_models import list_reference_models

__all__ = ["group"]

group = command_group("Score reference models: published models of other groups, on the rows of a split.")


@group.command("list")
def list_(json: JsonOption = False) -> None:
    """List the reference models, and the data that they were trained on.

    \b
    Examples:
      ecdreg reference list
    """
    output.rows(list_reference_models().to_dicts(), json=json)


@group.command()
def score(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="cgcnn or chgnet.", show_default=False)],
    target: TargetOption = None,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="Split with the rows to score.")] = "default",
    holdout_only: Annotated[
        bool, typer.Option("--holdout-only", help="Leave out the cross-validated rows, which are many.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Score a reference model on the rows of a split; the leaderboard shows it beside the other models.

    Nothing is fitted, so that cross-validated rows and the holdout are scored alike. Every table names its training
    data, the Materials Project, which contains crystals of the split. The packages come with
    pip install 'ecdreg[reference]'.

    \b
    Examples:
      ecdreg reference score cgcnn
      ecdreg reference score chgnet --target k_vrh --split mine --holdout-only
    """
    with output.progress() as progress:
        found = open_registry().score_reference_model(
            name, targets=target, split=split, holdout_only=holdout_only, progress=progress
        )
    if json or found:
        output.rows(found.to_dicts(), json=json)
