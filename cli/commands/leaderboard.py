"""``ecdreg leaderboard``: how models compare, best in cross-validation first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.options.common import JsonOption, TargetOption

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["leaderboard", "leaderboard_rows", "show_leaderboard"]


def leaderboard(
    target: TargetOption = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Only models of this split; all by default.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show how the models compare, best in cross-validation first, baselines beside them.

    R2 and RMSE are means over folds and runs with their standard deviation; RMSE is in the unit of the
    target. "in 90 % interval" is the share of the holdout that its intervals hold (ecdreg models coverage tells more).
    A peer that was trained elsewhere says on what: such a row is not leakage-free. The same rows are in the view
    v_leaderboard.

    \b
    Examples:
      ecdreg leaderboard
      ecdreg leaderboard --target k_vrh --split default --json
    """
    from cli.options.sessions import open_session
    from registry.properties import property_named

    with open_session() as session:
        for name in target or ():
            property_named(name)
        rows = leaderboard_rows(session, target, split)
    if json:
        output.json(rows)
    elif rows:
        show_leaderboard(rows)
    else:
        output.note("no finished models yet; `ecdreg train stacked` makes some")


def leaderboard_rows(session: Session, targets: Sequence[str] | None, split: str | None) -> list[dict[str, Any]]:
    """Rows of v_leaderboard, targets in their usual order, best in cross-validation first.

    Parameters
    ----------
    session
        Only read.
    targets, split
        Only these; None: all.
    """
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


def show_leaderboard(rows: Sequence[dict[str, Any]]) -> None:
    """Print a table for each target and split.

    Parameters
    ----------
    rows
        Of :func:`leaderboard_rows`.
    """
    for target, split, unit in dict.fromkeys((row["target"], row["split"], row["unit"]) for row in rows):
        chosen = [row for row in rows if (row["target"], row["split"]) == (target, split)]
        foreign = any(row["trained_on"] for row in chosen)
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
                    "in 90 % interval": _percent(row["holdout_coverage"]),
                    "n cv / holdout": f"{row['n_cv'] or 0} / {row['n_holdout'] or 0}",
                }
                | ({"trained on": row["trained_on"] or "this split"} if foreign else {})
                for row in chosen
            ],
            title=f"{target}, split {split!r}",
        )
        output.line()


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _with_sd(mean: float | None, sd: float | None) -> str:
    if mean is None:
        return ""
    digits = 3 if abs(mean) < 10 else 1
    return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if sd is not None else "")
