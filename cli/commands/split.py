"""``ecdreg split``: who is trained on, who is held out, who is left out and why."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.options.common import (
    JsonOption,
    RecipeOption,
    SeedOption,
    TargetOption,
    TextLevelOption,
    command_group,
    none_or,
)
from cli.options.sessions import open_session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from registry.splits import SplitSummary

__all__ = ["group"]

SourcesOption = Annotated[
    list[str] | None, typer.Option("--source", help="Only crystals of this source (repeatable).", show_default=False)
]
NameArgument = Annotated[str, typer.Argument(help="Name of the split.", show_default=False)]

group = command_group("Make, import and show splits: who is trained on, who is held out.")


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
        typer.Option("--iqr", help="Leave out slices whose extremes lie this many IQRs outside the quartiles."),
    ] = None,
    iqr_kind: Annotated[
        str | None,
        typer.Option(
            "--iqr-kind",
            metavar="KIND",
            help="Slices that --iqr looks at: spin, total, deformation, RECIPE or RECIPE:CHANNEL.",
        ),
    ] = None,
    source: SourcesOption = None,
    json: JsonOption = False,
) -> None:
    """Make a split by a rule: a seeded hash of each material decides.

    One split per target (default: all three). Crystals without a value, with a suspect one, or
    without the slice or text that is asked for are excluded, with the reason; the recipe or text
    level `none` asks for none. Crystals that come later move nobody between folds.

    \b
    Examples:
      ecdreg split create default
      ecdreg split create k-clean --target k_vrh --seed 420 --iqr 1.5 --iqr-kind spin
      ecdreg split create compositions --recipe none --text-level none
    """
    from registry.properties import TARGETS
    from registry.splits import create_split, split_summary

    with open_session() as session:
        targets = list(dict.fromkeys(target or TARGETS))
        for one in targets:
            create_split(
                session,
                name,
                target=one,
                seed=seed,
                n_folds=folds,
                holdout=holdout,
                recipe=none_or(recipe),
                text_level=none_or(text_level),
                iqr=iqr,
                iqr_kind=iqr_kind,
                sources=source or None,
            )
        made = [summary for summary in split_summary(session, name) if summary.target in targets]
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
    from 0). Ids that are unknown, whose value is suspect or missing, or that lack the slice or
    text asked for become excluded, with the reason.

    \b
    Examples:
      ecdreg split import paper-k_vrh-420.csv --target k_vrh
      ecdreg split import mine.csv --name mine --target efermi --target k_vrh
    """
    from registry.splits import import_split, split_summary

    with open_session() as session:
        splits = [
            import_split(
                session,
                name,
                file,
                target=one,
                recipe=none_or(recipe),
                text_level=none_or(text_level),
                sources=source or None,
            )
            for one in dict.fromkeys(target)
        ]
        made = [s for s in split_summary(session, splits[0].name) if s.target in target]
    for summary in made:
        leaking = summary.parameters.get("materials_in_several_parts") or []
        if leaking:
            shown = ", ".join(leaking[:5]) + (", ..." if len(leaking) > 5 else "")
            output.warn(f"{summary.target}: {len(leaking)} materials are in more than one fold or subset: {shown}")
    _print(made, json=json)


@group.command("show")
def show(
    name: NameArgument,
    target: TargetOption = None,
    members: Annotated[bool, typer.Option("--members", help="Every crystal with its part and reason.")] = False,
    json: JsonOption = False,
) -> None:
    """Show a split: members per subset and fold, and why others are excluded.

    \b
    Examples:
      ecdreg split show default
      ecdreg split show default --target k_vrh --members
      ecdreg split show default --members --json
    """
    from registry.splits import find_split, split_summary
    from registry.splits import members as members_of

    with open_session() as session:
        for one in target or ():
            find_split(session, name, one)  # says which there are
        found = [s for s in split_summary(session, name) if not target or s.target in target]
        lists = {
            s.target: [asdict(m) for m in members_of(session, find_split(session, name, s.target).id)]
            for s in (found if members else ())
        }
    if json:
        output.json([asdict(s) | ({"members": lists[s.target]} if members else {}) for s in found])
        return
    _print(found, json=False, rule=True)
    for one, rows in lists.items():
        output.line()
        output.table(
            rows,
            columns={"source_id": "id", "subset": "subset", "fold": "fold", "reason": "reason"},
            title=f"Members for {one}",
        )


@group.command("list")
def list_(json: JsonOption = False) -> None:
    """List all splits.

    \b
    Examples:
      ecdreg split list
      ecdreg split list --json
    """
    from registry.splits import list_splits

    with open_session() as session:
        found = list_splits(session)
    if json:
        output.json([asdict(s) for s in found])
    elif not found:
        output.note("no splits yet; `ecdreg split create default` makes one, and so does the first training")
    else:
        output.table([_row(s) for s in found])


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
        {"target": s.target, "why excluded": reason, "crystals": n}
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
    """The bounds of --iqr, a row for each channel and end."""
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
