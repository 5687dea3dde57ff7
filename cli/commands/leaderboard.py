"""``ecdreg leaderboard``: scores of all models, best in cross-validation first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from cli import output
from cli.connections import open_registry
from cli.options.arguments import JsonOption, TargetOption
from ecdreg.models.leaderboard import LeaderboardRow

__all__ = ["leaderboard", "print_leaderboard"]


def leaderboard(
    target: TargetOption = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Only models of this split; all by default.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Compare the models: best in cross-validation first, baselines beside them.

    R2 and RMSE are means over folds and runs with their standard deviation; RMSE is in the unit of the target. "in
    90 % interval" is the share of the holdout with a true value inside the interval; see `ecdreg models coverage`. A
    reference model was trained elsewhere, on the data in the last column: its scores are not leakage-free. The view
    v_leaderboard has the same rows.

    \b
    Examples:
      ecdreg leaderboard
      ecdreg leaderboard --target k_vrh --split default --json
    """
    found = open_registry().leaderboard(targets=target, split=split)
    if json:
        output.json(found.to_dicts())
    elif found:
        print_leaderboard(found)
    output.remarks(found)


def print_leaderboard(rows: Sequence[LeaderboardRow]) -> None:
    """Print a table for each target and split.

    Parameters
    ----------
    rows
        Rows of :func:`ecdreg.models.leaderboard.leaderboard`.
    """
    for target, split, unit in dict.fromkeys((row.target, row.split, row.unit) for row in rows):
        chosen = [row for row in rows if (row.target, row.split) == (target, split)]
        with_reference = any(row.trained_on for row in chosen)
        output.table(
            [
                {
                    "model": row.model,
                    "version": row.version,
                    "runs": row.n_runs,
                    "cv R2": _with_sd(row.cv_r2, row.cv_r2_sd),
                    f"cv RMSE [{unit}]": _with_sd(row.cv_rmse, row.cv_rmse_sd),
                    "holdout R2": _with_sd(row.holdout_r2, row.holdout_r2_sd),
                    f"holdout RMSE [{unit}]": _with_sd(row.holdout_rmse, row.holdout_rmse_sd),
                    "in 90 % interval": _percent(row.holdout_coverage),
                    "n cv / holdout": f"{row.n_cv or 0} / {row.n_holdout or 0}",
                }
                | ({"trained on": row.trained_on or "this split"} if with_reference else {})
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
