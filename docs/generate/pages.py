"""The generated pages of ``docs`` and their files.

Each page comes from what the code declares: a command, a column or a view is documented where it is defined.
"""

from __future__ import annotations

from pathlib import Path

from docs.generate.commands import cli_reference
from docs.generate.schema import schema_reference
from docs.generate.sql_page import sql_reference

__all__ = ["DOCS", "PAGES", "write"]

DOCS = Path(__file__).parents[1]

PAGES = {"cli.md": cli_reference, "schema.md": schema_reference, "sql.md": sql_reference}
"""File under ``docs/``, and the function that makes its text."""


def write(folder: Path = DOCS) -> list[Path]:
    """Write the generated pages.

    Parameters
    ----------
    folder
        Their folder; made if it does not exist.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    OSError
        If a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, make in PAGES.items():
        path = folder / name
        path.write_text(make(), encoding="utf-8")
        paths.append(path)
    return paths
