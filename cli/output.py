"""Output of commands: results on stdout, everything about the work on stderr.

Commands use this module and never print by themselves. ``--quiet`` silences notes and
progress, never results, warnings or errors. rich is imported only for a terminal.
"""

from __future__ import annotations

import csv as csv_module
import dataclasses
import json as json_module
import math
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from registry.jobs.progress import Progress, Silent

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from ecdreg.results import Results

__all__ = [
    "csv",
    "error",
    "file",
    "json",
    "line",
    "note",
    "number",
    "progress",
    "quiet",
    "remarks",
    "rows",
    "table",
    "warn",
]

Row = Mapping[str, object]

quiet: ContextVar[bool] = ContextVar("quiet", default=False)
"""Set by the option ``--quiet``."""


def line(text: str = "") -> None:
    """Print a line of the result."""
    sys.stdout.write(f"{text}\n")


def file(path: Path) -> None:
    """A file that was written, with its size."""
    line(f"{path} ({path.stat().st_size / 1024:.0f} kB)")


def note(text: str) -> None:
    """Print a remark about the work or the next step, which is not part of the result."""
    if not quiet.get():
        sys.stderr.write(f"{text}\n")


def warn(text: str) -> None:
    """Print a warning."""
    sys.stderr.write(f"warning: {text}\n")


def remarks(result: Results[object]) -> None:
    """Print the warnings and the notes of a result of the library."""
    for text in result.warnings:
        warn(text)
    for text in result.notes:
        note(text)


def error(text: str) -> None:
    """Print the reason for which the command fails, in one line."""
    sys.stderr.write(f"error: {text}\n")


def json(value: object) -> None:
    """Print the result as JSON: NaN and infinities become null, times ISO 8601."""
    line(json_module.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def csv(rows: Sequence[Row], columns: Sequence[str] | Mapping[str, str] | None = None) -> None:
    """Print the result as comma-separated values with a header; None stays empty."""
    names, headings = _columns(rows, columns)
    writer = csv_module.writer(sys.stdout, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows([["" if (cell := _plain(row.get(name))) is None else cell for name in names] for row in rows])


def table(
    rows: Sequence[Row],
    columns: Sequence[str] | Mapping[str, str] | None = None,
    *,
    title: str | None = None,
    formats: Mapping[str, str] | None = None,
) -> None:
    """Print the result as a table: by rich on a terminal, as aligned text elsewhere.

    On a terminal that is too narrow for the table, each row is a block with a line for each column. Ids, numbers
    and headings are never broken over lines; long texts are, between words.

    Parameters
    ----------
    rows
        Mappings from column name to value; None stays empty.
    columns
        Names in their order, or name to heading. By default those of the first row.
    title
        A line above the table.
    formats
        Format specification per column, as ``{"distance": ".3f"}``. Other floats show four
        significant digits.
    """
    names, headings = _columns(rows, columns)
    cells = [[_cell(row.get(name), (formats or {}).get(name)) for name in names] for row in rows]
    numeric = [
        all(isinstance(row.get(name), (int, float)) or row.get(name) is None for row in rows) and bool(rows)
        for name in names
    ]
    if sys.stdout.isatty():
        _on_terminal(headings, cells, numeric, title=title)
        return
    widths = [max(len(cell) for cell in column) for column in zip(headings, *cells, strict=True)]
    if title:
        line(title)
    for row in (headings, *cells):
        aligned = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        line("  ".join(aligned).rstrip())


def number(value: float, spec: str) -> str:
    """Format a number; one of a magnitude from 1 to 100000 has no exponent: 130, not 1.3e+02."""
    text = format(value, spec)
    return f"{float(text):.0f}" if "e+" in text and abs(value) < 1e5 else text


def rows(
    rows: Sequence[Row],
    *,
    json: bool,
    columns: Sequence[str] | Mapping[str, str] | None = None,
    title: str | None = None,
    formats: Mapping[str, str] | None = None,
) -> None:
    """Print the rows as JSON or as a table.

    Parameters
    ----------
    rows
        Mappings from column name to value.
    json
        Value of the option ``--json``; JSON has every column of the rows.
    columns, title, formats
        Of the table; see :func:`table`.
    """
    if json:
        globals()["json"](rows)
    else:
        table(rows, columns, title=title, formats=formats)


@contextmanager
def progress() -> Iterator[Progress]:
    """Receiver of progress: bars on a terminal, a line for each 10 % elsewhere, nothing with ``--quiet``."""
    if quiet.get():
        yield Silent()
    elif sys.stderr.isatty():
        with _bars() as bars:
            yield _Bars(bars)
    else:
        yield _Lines()


# ---------------------------------------------------------------------------- terminals


def _on_terminal(
    headings: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool], *, title: str | None
) -> None:
    """Print a table as wide as its columns, or a block for each row where the terminal is too narrow.

    Parameters
    ----------
    headings
        One for each column.
    cells
        Rows of formatted cells.
    numeric
        Whether a column has numbers only, which are aligned at the right.
    title
        A line above.
    """
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    console = Console()
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    columns = [[row[index] for row in cells] for index in range(len(headings))]
    for heading, column, right in zip(headings, columns, numeric, strict=True):
        text = any(_is_text(cell) for cell in column)
        unbroken = [heading, *(word for cell in column for word in (cell.split() if text else [cell]))]
        drawn.add_column(
            escape(heading),
            justify="right" if right else "left",
            no_wrap=not text,
            min_width=max(_TEXT_WIDTH if text else 0, *map(len, unbroken)),
        )
    for row in cells:
        drawn.add_row(*map(escape, row))
    if title:
        console.print(Text(title, style="italic"), soft_wrap=True)
    needed = Measurement.get(console, console.options.update(max_width=sys.maxsize), drawn).minimum
    if needed <= console.width or not cells:
        console.print(drawn, width=max(needed, console.width))
        return
    for row in cells:
        line()
        for heading, cell in zip(headings, row, strict=True):
            line(_labelled(heading, cell, indent=2 + max(map(len, headings)), width=console.width))
    line()


_TEXT_WIDTH = 40
"""Cells longer than this that have several words are texts: they may continue on the next line."""


def _is_text(cell: str) -> bool:
    return len(cell) > _TEXT_WIDTH and " " in cell


def _labelled(heading: str, cell: str, *, indent: int, width: int) -> str:
    """A heading and its cell, in one line of at most the width where that is possible."""
    label = heading.ljust(indent)
    if _is_text(cell):
        return textwrap.fill(
            cell,
            max(width, indent + _TEXT_WIDTH // 2),
            initial_indent=label,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return f"{label}{cell}".rstrip() if indent + len(cell) <= width else f"{heading}\n  {cell}"


# ------------------------------------------------------------------------------ progress


class _Lines:
    """Progress as plain lines on stderr."""

    def __init__(self) -> None:
        self._label = ""
        self._total: int | None = None
        self._done = 0
        self._reported = 0

    def begin(self, label: str, total: int | None = None) -> None:
        self._label, self._total, self._done, self._reported = label, total, 0, 0
        self.message(f"{label} ..." if total is None else f"{label}: 0 of {total}")

    def advance(self, steps: int = 1, note: str = "") -> None:
        self._done += steps
        if self._total:
            reached = 10 * self._done // self._total
            if reached > self._reported:
                self._reported = reached
                self.message(f"{self._label}: {self._done} of {self._total}{f' ({note})' if note else ''}")
        elif self._done >= max(2 * self._reported, 10):  # without a total, lines become rarer
            self._reported = self._done
            self.message(f"{self._label}: {self._done}")

    def end(self) -> None:
        if self._total is None and self._done > self._reported:
            self.message(f"{self._label}: {self._done}")

    def message(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


class _Bars:
    """Progress as rich bars on stderr."""

    def __init__(self, bars: RichProgress) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def begin(self, label: str, total: int | None = None) -> None:
        self._task = self._bars.add_task(label, total=total, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        if self._task is not None:
            self._bars.update(self._task, advance=steps, note=note[:40])

    def end(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, note="")
            self._bars.stop_task(self._task)
            self._task = None

    def message(self, line: str) -> None:
        self._bars.console.print(line, markup=False, highlight=False)


def _bars() -> RichProgress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
    )


# --------------------------------------------------------------------------------- cells


def _columns(rows: Sequence[Row], columns: Sequence[str] | Mapping[str, str] | None) -> tuple[list[str], list[str]]:
    if columns is None:
        columns = list(rows[0]) if rows else []
    if isinstance(columns, Mapping):
        return list(columns), list(columns.values())
    return list(columns), list(columns)


def _cell(value: object, spec: str | None) -> str:
    value = _plain(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value, spec) if spec else f"{value:.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_cell(item, spec) for item in value)
    if isinstance(value, dict):
        return json_module.dumps(value, ensure_ascii=False)
    return format(value, spec) if spec else str(value)


def _plain(value: Any) -> Any:
    """The value in JSON's own types."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(item) for item in value)
    if isinstance(value, (datetime, date)):
        return value.isoformat(sep="T") if isinstance(value, datetime) else value.isoformat()
    if hasattr(value, "tolist"):  # a numpy array or scalar, without importing numpy
        return _plain(value.tolist())
    return str(value)
