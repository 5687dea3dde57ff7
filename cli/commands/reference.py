"""``ecdreg reference``: published models of others on the same rows, with what they were trained on named."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import output
from cli.options.common import JsonOption, TargetOption, command_group, open_engine

__all__ = ["group"]

group = command_group("Score published models of others on the rows of a split.")


@group.command("list")
def list_(json: JsonOption = False) -> None:
    """List the published models that can be scored, and what they were trained on.

    \b
    Examples:
      ecdreg reference list
    """
    from importlib.metadata import PackageNotFoundError, version

    from train.paper.reference_models import REFERENCE_MODELS

    rows = []
    for name in REFERENCE_MODELS:
        peer = REFERENCE_MODELS[name]
        try:
            installed = version(peer.package)
        except PackageNotFoundError:
            installed = None
        rows.append(
            {"peer": name, "package": peer.package, "installed": installed, "targets": ", ".join(peer.targets)}
            | {"trained_on": peer.trained_on}
        )
    output.rows(rows, json=json)


@group.command("score")
def score(
    name: Annotated[str, typer.Argument(metavar="PEER", help="cgcnn or chgnet.", show_default=False)],
    target: TargetOption = None,
    split: Annotated[str, typer.Option("--split", metavar="NAME", help="Split whose rows are scored.")] = "default",
    holdout_only: Annotated[
        bool, typer.Option("--holdout-only", help="Leave out the cross-validated rows, which are many.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Score a published model on the rows of a split; it stands in the leaderboard beside the others.

    Nothing is fitted, so that cross-validated rows and the holdout are scored alike. What it was trained on is
    named in every table: the Materials Project, so that it has seen crystals of the split. pip install
    'ecdreg[peers]' brings the packages.

    \b
    Examples:
      ecdreg reference score cgcnn
      ecdreg reference score chgnet --target k_vrh --split mine --holdout-only
    """
    from train.paper.reference_models import REFERENCE_MODELS, run_reference_model

    peer = REFERENCE_MODELS[name]
    engine = open_engine()
    subsets = ("holdout",) if holdout_only else ("cv", "holdout")
    rows = []
    with output.progress() as progress:
        for one in target or peer.targets:
            result = run_reference_model(engine, name, target=one, split=split, subsets=subsets, progress=progress)
            if result.status == "unchanged":
                output.note(f"{name} was scored on these rows for {one} before; ecdreg leaderboard shows it")
            if result.missing:
                shown = ", ".join(result.missing[:5]) + (", ..." if len(result.missing) > 5 else "")
                output.note(f"{name} cannot read {len(result.missing)} crystals for {one}: {shown}")
            rows += [
                {"peer": name, "target": one, "subset": subset, "n": result.n[subset], **scores}
                | {"trained_on": peer.trained_on}
                for subset, scores in result.scores.items()
            ]
    if json:
        output.json(rows)
    elif rows:
        output.table(rows)
