"""Comments on the SQL surface: views, types, their columns, and functions."""

from __future__ import annotations

import re

__all__ = ["column_table", "escaped", "surface_comments"]

_COMMENT = re.compile(r"COMMENT ON (VIEW|TYPE|COLUMN|FUNCTION)\s+(.+?)\s+IS\s+((?:'(?:[^']|'')*'\s*)+);", re.DOTALL)


def surface_comments() -> list[tuple[str, str, str]]:
    """List the comments in their order: kind (VIEW, TYPE, COLUMN or FUNCTION), name, text."""
    from registry.postgres.surface import surface_sql

    return [(kind, name, _literal(value)) for kind, name, value in _COMMENT.findall(surface_sql())]


def column_table(name: str) -> str:
    """Make a Markdown table of the columns of a view or type, with their comments.

    Parameters
    ----------
    name
        The view or type.
    """
    rows = [
        f"| `{column.partition('.')[2]}` | {escaped(text)} |"
        for kind, column, text in surface_comments()
        if kind == "COLUMN" and column.partition(".")[0] == name
    ]
    return "\n".join(["| column | description |", "|---|---|", *rows])


def escaped(text: str) -> str:
    """A text as a cell of a Markdown table."""
    return text.replace("|", "\\|")


def _literal(value: str) -> str:
    """Text of a string literal of SQL; literals on successive lines are one."""
    return "".join(part.replace("''", "'") for part in re.findall(r"'((?:[^']|'')*)'", value))
