"""A reproduction in the layout of the paper: as tables, as rows of a CSV, as Markdown, as one HTML page.

One table per target, stage by text level; R² and RMSE of the folds' training rows (train), of the rows that each fold
scores (val) and of the holdout (test), beside the published numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import TYPE_CHECKING, Any

from ecdreg.report.markup import CSS
from train.paper.published import SUBSETS, Published, published_for

if TYPE_CHECKING:
    from train.paper.reproduction import Line, Reproduction, Stat

__all__ = ["COLUMNS", "FOLD_COLUMNS", "flat_rows", "fold_rows", "html", "markdown", "notes", "table_rows"]

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
    """Rows of one target's table, in the order of the lines.

    Parameters
    ----------
    lines
        Of one target.
    phases
        Every phase, not only the last of each model.
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
    """The first fold alone beside all folds: of the stage clip, or of every stage where clip was not trained.

    Parameters
    ----------
    lines
        Of all targets.
    """
    last = [line for line in lines if line.last and line.first_fold and not line.row.stage.startswith("baseline")]
    clips = [line for line in last if line.row.stage == "clip"]
    rows = []
    for line in clips or last:
        alone = published_for(line.target, "clip-fold-1", None)
        clip = published_for(line.target, "clip", None)
        rows.append(
            {
                "target": line.target,
                "model": _model(line),
                "text": line.row.text_level,
                "recipe": line.row.recipe,
                "first": _pair(line.first_fold),
                "all": _pair(line.scores.get("val", {})),
                "published_first": _published(alone, "val"),
                "published_all": _published(clip, "val"),
            }
        )
    return rows


def flat_rows(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """Every line and phase with every number, for CSV and JSON; rmse and mae in ``unit``."""
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
                known = {} if published is None else getattr(published, score)
                row[f"published_{subset}_{score}"] = known.get(subset)
        rows.append(row)
    return rows


def notes(lines: Sequence[Line]) -> list[str]:
    """What a reader must know to read the tables, one remark a line."""
    told = [
        "± is the standard deviation over folds and runs (test: over runs); it is no error bar of the mean.",
        "test: predicted once per run, by the refit on all of cv; nothing was fitted, stopped or chosen by it.",
        "published: Massa et al., arXiv 2401.09301v3; for image the mean of their runs beside the three text levels."
        " Their stages leak (a fold's validation rows were trained on, part of the test rows too), these do not.",
    ]
    if any(line.row.stage == "clip" and line.kind != "clip" for line in lines):
        told.append(
            "clip is a dual encoder here: the two offline backbones with projections, aligned on the training fold;"
            " the published numbers beside it are those of openai/clip-vit-base-patch32."
        )
    for peer, trained_on in sorted({(line.row.stage, line.trained_on) for line in lines if line.trained_on}):
        told.append(f"* {peer} was not fitted here: it is as published, trained on {trained_on}.")
    if all(line.kind != "image" or line.phase != "finetune" for line in lines):
        told.append("backbones are frozen: the towers are readouts, and a stack's second phase trains dense layers.")
    return told


def markdown(made: Reproduction, *, title: str, command: str, seconds: float) -> str:
    """The tables as Markdown.

    Parameters
    ----------
    made
        A reproduction.
    title
        First heading.
    command
        That made it.
    seconds
        Wall time of that command [s]; what had been finished before is not in it.
    """
    parts = [f"# {title}", "", f"`{command}`, {_duration(seconds)}.", ""]
    for lines in _by_target(made.lines).values():
        parts += [f"## {_heading(lines)}", "", *_markdown_table(table_rows(lines), COLUMNS), ""]
    if folds := fold_rows(made.lines):
        parts += ["## First fold alone", "", *_markdown_table(folds, FOLD_COLUMNS), ""]
    parts += [f"- {note}" for note in notes(made.lines)]
    parts += [f"- failed: {job.label}: {error}" for job, error in made.failed]
    return "\n".join(parts) + "\n"


def html(
    made: Reproduction, *, title: str, command: str, seconds: float, figures: Sequence[tuple[str, str]] = ()
) -> str:
    """The tables and figures as one HTML document that requests nothing from anywhere.

    Parameters
    ----------
    made, title, command, seconds
        As :func:`markdown` takes them.
    figures
        Pairs of an ``<img>`` and its caption.
    """
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{CSS}</style></head><body><h1>{escape(title)}</h1>"
        f"<p class=lead><code>{escape(command)}</code>, {_duration(seconds)}</p>"
    ]
    for lines in _by_target(made.lines).values():
        parts += [f"<h2>{escape(_heading(lines))}</h2>", _html_table(table_rows(lines), COLUMNS)]
    if folds := fold_rows(made.lines):
        parts += ["<h2>First fold alone</h2>", _html_table(folds, FOLD_COLUMNS)]
    parts.append("<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes(made.lines)) + "</ul>")
    if made.failed:
        failed = "".join(f"<li>{escape(job.label)}: {escape(error)}</li>" for job, error in made.failed)
        parts.append(f"<h2>Failed</h2><ul>{failed}</ul>")
    parts += [f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>" for image, caption in figures]
    parts.append(f"<footer>{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}</footer></body></html>\n")
    return "".join(parts)


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
    shown = "" if rmse is None else f" / {rmse:.1f}" if rmse >= 10 else f" / {rmse:.2f}"
    return f"{row.r2[subset]:.2f}{shown}"


def _cells(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[str]:
    return ["" if row[name] is None else str(row[name]) for name in columns]


def _markdown_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> list[str]:
    lines = ["| " + " | ".join(columns.values()) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(_cells(row, columns)) + " |" for row in rows]


def _html_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in columns.values())
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(row, columns)) + "</tr>" for row in rows
    )
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
