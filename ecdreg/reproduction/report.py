"""Reproduction of the paper in the layout of its tables: rows, CSV rows, Markdown, and one HTML page.

One table for each target, stage by text level: R² and RMSE on the training rows of the folds (train), on the rows that
each fold leaves out (val) and on the holdout (test), with the published numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecdreg.figures.files import image_element
from ecdreg.figures.scores import draw_scores
from ecdreg.output.files import check_output_path, write_output
from ecdreg.output.rendering import render
from train.paper.published import SUBSETS, Published, published_for

if TYPE_CHECKING:
    from markupsafe import Markup

    from train.paper.reproduction import Line, Reproduction, Stat

__all__ = [
    "COLUMNS",
    "FOLD_COLUMNS",
    "SUFFIXES",
    "check_reproduction_path",
    "flat_rows",
    "fold_rows",
    "notes",
    "reproduction_markdown",
    "reproduction_page",
    "table_rows",
    "write_reproduction",
]

SUFFIXES = (".html", ".md")
"""Endings of the files that :func:`write_reproduction` makes."""

COLUMNS = {
    "model": "model",
    "text": "text",
    "recipe": "slices",
    "runs": "runs",
    "train": "train R² / RMSE",
    "val": "val R² / RMSE",
    "test": "test R² / RMSE",
    "published_train": "published train",
    "published_val": "published val",
    "published_test": "published test",
}
"""Columns of :func:`table_rows` and their headings."""

FOLD_COLUMNS = {
    "target": "target",
    "model": "model",
    "text": "text",
    "recipe": "slices",
    "first": "first fold R² / RMSE",
    "all": "all folds R² / RMSE",
    "published_first": "published CLIP, first fold",
    "published_all": "published CLIP, all folds",
}


def table_rows(lines: Iterable[Line], *, phases: bool = False) -> list[dict[str, Any]]:
    """Make the rows of the table of one target, in the order of the lines.

    Parameters
    ----------
    lines
        Lines of one target.
    phases
        Whether every phase has a row, not only the last phase of each model.
    """
    rows = []
    for line in lines:
        if not (line.last or phases):
            continue
        published = published_for(line.target, line.row.stage, line.row.text_level)
        rows.append(
            {
                "model": _model(line) + ("" if line.last else f", {line.phase}"),
                "text": line.row.text_level,
                "recipe": line.row.recipe,
                "runs": line.runs,
                **{subset: _pair(line.scores.get(subset, {})) for subset in SUBSETS},
                **{f"published_{subset}": _published(published, subset) for subset in SUBSETS},
            }
        )
    return rows


def fold_rows(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """Compare the first fold with all folds: for the stage clip, or for every stage if clip was not trained.

    Parameters
    ----------
    lines
        Lines of all targets.
    """
    last = [line for line in lines if line.last and line.first_fold and not line.row.stage.startswith("baseline")]
    clips = [line for line in last if line.row.stage == "clip"]
    rows = []
    for line in clips or last:
        first_fold = published_for(line.target, "clip-fold-1", None)
        clip = published_for(line.target, "clip", None)
        rows.append(
            {
                "target": line.target,
                "model": _model(line),
                "text": line.row.text_level,
                "recipe": line.row.recipe,
                "first": _pair(line.first_fold),
                "all": _pair(line.scores.get("val", {})),
                "published_first": _published(first_fold, "val"),
                "published_all": _published(clip, "val"),
            }
        )
    return rows


def flat_rows(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """List every line and phase with every number, for CSV and JSON; rmse and mae in ``unit``."""
    rows = []
    for line in lines:
        row: dict[str, Any] = {
            "target": line.target,
            "unit": line.unit,
            "stage": line.row.stage,
            "kind": line.kind,
            "trained_on": line.trained_on,
            "text_level": line.row.text_level,
            "recipe": line.row.recipe,
            "phase": line.phase,
            "last_phase": line.last,
            "runs": line.runs,
            "n_cv": line.n_cv,
            "n_holdout": line.n_holdout,
        }
        for subset in SUBSETS:
            for score in ("r2", "rmse", "mae"):
                stat = line.scores.get(subset, {}).get(score)
                row[f"{subset}_{score}"] = None if stat is None else stat.mean
                row[f"{subset}_{score}_sd"] = None if stat is None else stat.sd
        for score in ("r2", "rmse"):
            first = line.first_fold.get(score)
            row[f"first_fold_{score}"] = None if first is None else first.mean
        published = published_for(line.target, line.row.stage, line.row.text_level)
        for subset in SUBSETS:
            for score in ("r2", "rmse"):
                values = {} if published is None else getattr(published, score)
                row[f"published_{subset}_{score}"] = values.get(subset)
        rows.append(row)
    return rows


def notes(lines: Sequence[Line]) -> list[str]:
    """Remarks that a reader needs to interpret the tables, one line each."""
    remarks = [
        "± is the standard deviation over folds and runs (test: over runs); it is not an error bar of the mean.",
        "test: predicted once per run by the refit on all of cv; nothing was fitted, stopped or chosen with it.",
        "published: Massa et al., arXiv 2401.09301v3; image is the mean of their runs with the three text levels. Their"
        " stages leak: validation rows of a fold and part of the test rows were trained on. The stages here do not.",
    ]
    if any(line.row.stage == "clip" and line.kind != "clip" for line in lines):
        remarks.append(
            "clip is a dual encoder here: the two offline backbones with projections, aligned on the training fold;"
            " the published numbers are those of openai/clip-vit-base-patch32."
        )
    for name, trained_on in sorted({(line.row.stage, line.trained_on) for line in lines if line.trained_on}):
        remarks.append(f"* {name} is a reference model with its published weights, trained on {trained_on}.")
    if all(line.kind != "image" or line.phase != "finetune" for line in lines):
        remarks.append(
            "backbones are frozen: towers are readouts, and the second phase of a stack trains dense layers."
        )
    return remarks


def reproduction_markdown(made: Reproduction, *, title: str, command: str, seconds: float) -> str:
    """Render the tables as Markdown.

    Parameters
    ----------
    made
        A reproduction.
    title
        First heading.
    command
        Command line that made it.
    seconds
        Wall time of that command [s]; without experiments that had been finished before.
    """
    parts = [f"# {title}", "", f"`{command}`, {_duration(seconds)}.", ""]
    for lines in _by_target(made.lines).values():
        parts += [f"## {_heading(lines)}", "", *_markdown_table(table_rows(lines), COLUMNS), ""]
    if folds := fold_rows(made.lines):
        parts += ["## First fold only", "", *_markdown_table(folds, FOLD_COLUMNS), ""]
    parts += [f"- {note}" for note in notes(made.lines)]
    parts += [f"- failed: {job.label}: {error}" for job, error in made.failed]
    return "\n".join(parts) + "\n"


def reproduction_page(made: Reproduction, *, title: str, command: str, seconds: float) -> str:
    """Render the tables and figures as an HTML document that requests nothing.

    Parameters
    ----------
    made, title, command, seconds
        As in :func:`reproduction_markdown`.
    """
    return render(
        "report/reproduction.html.j2",
        title=title,
        command=command,
        duration=_duration(seconds),
        tables=[(_heading(lines), table_rows(lines)) for lines in _by_target(made.lines).values()],
        columns=COLUMNS,
        fold_rows=fold_rows(made.lines),
        fold_columns=FOLD_COLUMNS,
        notes=notes(made.lines),
        failed=[(job.label, error) for job, error in made.failed],
        figures=_figures(made),
        made_at=datetime.now().astimezone(),
    )


def check_reproduction_path(path: Path) -> None:
    """Check that tables can be written to a path, before the work for them is done.

    Raises
    ------
    ConfigurationError
        If its ending is none of :data:`SUFFIXES`, or its folder does not exist.
    """
    check_output_path(path, SUFFIXES)


def write_reproduction(made: Reproduction, path: Path, *, title: str, command: str, seconds: float) -> Path:
    """Write the tables as Markdown, or the tables and figures as HTML, by the ending of the file.

    Parameters
    ----------
    made, title, command, seconds
        As in :func:`reproduction_markdown`.
    path
        One that :func:`check_reproduction_path` accepts.

    Raises
    ------
    ConfigurationError
        If the file cannot be written, or its ending is none of :data:`SUFFIXES`.
    """
    check_reproduction_path(path)
    make = reproduction_markdown if path.suffix.lower() == ".md" else reproduction_page
    return write_output(path, make(made, title=title, command=command, seconds=seconds))


# ------------------------------------------------------------------------------ private


def _by_target(lines: Iterable[Line]) -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line.target, []).append(line)
    return found


def _heading(lines: Sequence[Line]) -> str:
    first = lines[0]
    n_cv, n_holdout = max(line.n_cv for line in lines), max(line.n_holdout for line in lines)
    return f"{first.target} [{first.unit}], up to {n_cv} crystals in cv and {n_holdout} held out"


def _model(line: Line) -> str:
    if line.trained_on:
        return f"{line.row.stage}*"
    return f"clip ({line.kind})" if line.row.stage == "clip" and line.kind != "clip" else line.row.stage


def _pair(stats: Mapping[str, Stat]) -> str:
    if "rmse" not in stats:
        return ""
    r2 = _with_sd(stats["r2"], ".2f") if "r2" in stats else "–"
    return f"{r2} / {_with_sd(stats['rmse'], '.1f' if stats['rmse'].mean >= 10 else '.2f')}"


def _with_sd(stat: Stat, spec: str) -> str:
    return format(stat.mean, spec) + (f" ± {format(stat.sd, spec)}" if stat.sd is not None else "")


def _published(row: Published | None, subset: str) -> str:
    if row is None or subset not in row.r2:
        return ""
    rmse = row.rmse.get(subset)
    second = "" if rmse is None else f" / {rmse:.1f}" if rmse >= 10 else f" / {rmse:.2f}"
    return f"{row.r2[subset]:.2f}{second}"


def _cells(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[str]:
    return ["" if row[name] is None else str(row[name]) for name in columns]


def _markdown_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> list[str]:
    lines = ["| " + " | ".join(columns.values()) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(_cells(row, columns)) + " |" for row in rows]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _figures(made: Reproduction) -> list[tuple[Markup, str]]:
    """The scores of each recipe as an image and its caption."""
    figures = []
    for recipe in made.plan.recipes:
        lines = [line for line in made.lines if line.row.recipe in (None, recipe)]
        if not any(line.row.recipe for line in lines):
            continue
        caption = (
            f"R² by stage and text level, slices of recipe {recipe}: bars with their standard deviation over folds and"
            " runs, published numbers as diamonds."
        )
        figure = draw_scores(lines)
        figure.set_label(caption)
        figures.append((image_element(figure), caption))
    return figures
