"""``ecdreg split``: assignment of crystals to cross-validation, holdout or excluded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import output
from cli.connections import open_registry
from cli.groups import command_group
from cli.options.arguments import JsonOption, RecipeOption, SeedOption, TargetOption, TextLevelOption, none_or
from ecdreg.splits import SplitSummary

__all__ = ["group"]

SourcesOption = Annotated[
    list[str] | None, typer.Option("--source", help="Only crystals of this source (repeatable).", show_default=False)
]
NameArgument = Annotated[str, typer.Argument(help="Name of the split.", show_default=False)]

group = command_group("Make, import and show splits of the crystals: cross-validation, holdout, excluded.")


@group.command("create")
def create(
    name: NameArgument,
    target: TargetOption = None,
    seed: SeedOption = 0,
    folds: Annotated[int, typer.Option("--folds", min=2, help="Folds of the cross-validation.")] = 5,
    holdout: Annotated[float, typer.Option("--holdout", help="Share of the materials that is held out.")] = 0.15,
    recipe: RecipeOption = "metric",
    text_level: TextLevelOption = "keywords",
    iqr: Annotated[
        float | None,
        typer.Option("--iqr", help="Exclude slices with an extreme value this many IQRs outside the quartiles."),
    ] = None,
    iqr_kind: Annotated[
        str | None,
        typer.Option(
            "--iqr-kind",
            metavar="KIND",
            help="Slices that --iqr is applied to: spin, total, deformation, RECIPE or RECIPE:CHANNEL.",
        ),
    ] = None,
    source: SourcesOption = None,
    json: JsonOption = False,
) -> None:
    """Make a split by a rule: a seeded hash assigns each material.

    One split for each target (default: all three). Crystals without a value, with a suspect value, or
    without the required slice or text are excluded, with the reason; `none` as recipe or text level
    requires none. Crystals that are ingested later do not change the assignment of others.

    \b
    Examples:
      ecdreg split create default
      ecdreg split create k-clean --target k_vrh --seed 420 --iqr 1.5 --iqr-kind spin
      ecdreg split create compositions --recipe none --text-level none
    """
    made = open_registry().create_split(
        name,
        targets=target,
        seed=seed,
        folds=folds,
        holdout=holdout,
        recipe=none_or(recipe),
        text_level=none_or(text_level),
        iqr=iqr,
        iqr_kind=iqr_kind,
        sources=source,
    )
    _print(made, json=json)


@group.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="CSV with the columns id, subset, fold.", show_default=False)],
    target: Annotated[
        list[str], typer.Option("--target", help="Property that the split is for (repeatable).", show_default=False)
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the split; without it: that of the file.", show_default=False)
    ] = None,
    recipe: RecipeOption = "metric",
    text_level: TextLevelOption = "keywords",
    source: SourcesOption = None,
    json: JsonOption = False,
) -> None:
    """Import a split from a CSV file.

    Columns: `id` (as in its source, or source:id), `subset` (cv or holdout) and `fold` (of cv,
    from 0). Unknown ids, and crystals with a suspect or missing value or without the required slice or
    text, are excluded, with the reason.

    \b
    Examples:
      ecdreg split import paper-k_vrh-420.csv --target k_vrh
      ecdreg split import mine.csv --name mine --target efermi --target k_vrh
    """
    made = open_registry().import_split(
        file,
        targets=target,
        name=name,
        recipe=none_or(recipe),
        text_level=none_or(text_level),
        sources=source,
    )
    output.remarks(made)
    _print(made, json=json)


@group.command("show")
def show(
    name: NameArgument,
    target: TargetOption = None,
    members: Annotated[bool, typer.Option("--members", help="Every crystal with its part and reason.")] = False,
    json: JsonOption = False,
) -> None:
    """Show a split: members of each subset and fold, and the reasons of the excluded ones.

    \b
    Examples:
      ecdreg split show default
      ecdreg split show default --target k_vrh --members
      ecdreg split show default --members --json
    """
    found = open_registry().show_split(name, targets=target, members=members)
    if json:
        output.json(found.to_dicts())
        return
    _print([s.summary for s in found], json=False, rule=True)
    for one in found if members else ():
        output.line()
        output.table(
            [asdict(member) for member in one.members or ()],
            columns={"source_id": "id", "subset": "subset", "fold": "fold", "reason": "reason"},
            title=f"Members for {one.summary.target}",
        )


@group.command("list")
def list_(json: JsonOption = False) -> None:
    """List all splits.

    \b
    Examples:
      ecdreg split list
      ecdreg split list --json
    """
    found = open_registry().splits()
    if json:
        output.json(found.to_dicts())
    elif found:
        output.table([_row(s) for s in found])
    output.remarks(found)


def _row(summary: SplitSummary) -> dict[str, Any]:
    return {
        "split": summary.name,
        "target": summary.target,
        "origin": summary.origin,
        "seed": summary.seed,
        "cv": summary.cv,
        "holdout": summary.holdout,
        "excluded": summary.excluded,
        "cv by fold": ", ".join(f"{fold}: {n}" for fold, n in sorted(summary.folds.items())),
        "made": f"{summary.created_at:%Y-%m-%d %H:%M}",
    }


def _print(summaries: Sequence[SplitSummary], *, json: bool, rule: bool = False) -> None:
    if json:
        output.json([asdict(s) for s in summaries])
        return
    output.table([_row(s) for s in summaries])
    reasons = [
        {"target": s.target, "reason for exclusion": reason, "crystals": n}
        for s in summaries
        for reason, n in s.reasons.items()
    ]
    if reasons:
        output.line()
        output.table(reasons)
    fences = [fence for s in summaries for fence in _fences(s)]
    if fences:
        output.line()
        output.table(fences)
    if rule:
        for summary in summaries:
            given = {k: v for k, v in summary.parameters.items() if v is not None and v != []}
            output.line(f"{summary.target}: {', '.join(f'{k} {v}' for k, v in given.items())}")


def _fences(summary: SplitSummary) -> list[dict[str, Any]]:
    """Bounds of --iqr, one row for each channel and end."""
    found = summary.iqr_bounds or {}
    return [
        {
            "target": summary.target,
            "recipe": found["recipe"],
            "channel": channel,
            "of the slice": end,
            "not below": f"{fence[0]:.4g}",
            "not above": f"{fence[1]:.4g}",
        }
        for channel, ends in found.get("channels", {}).items()
        for end, fence in ends.items()
    ]
