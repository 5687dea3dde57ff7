"""Every command is documented, and the generated references are up to date."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.main import app
from docs.generate.commands import subcommands
from docs.generate.pages import PAGES, write

ROOT = Path(__file__).parents[2]
# They print only what they did, or run another program, as do the commands that draw.
WITHOUT_JSON = {"db upgrade", "db downgrade", "db start", "db stop", "db url", "db shell", "report"}
WITHOUT_JSON |= {"db grant-reader", "db grant-writer"}


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Commands that are not groups, by their full names."""
    children = list(subcommands(command))
    if not children:
        yield name, command
    for child_name, child in children:
        yield from leaves(child, f"{name} {child_name}".strip())


COMMANDS = dict(leaves(typer.main.get_command(app)))


@pytest.mark.parametrize("page", PAGES)
def test_reference_is_up_to_date(page: str) -> None:
    written = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert written == PAGES[page](), f"docs/{page} is stale; run `python -m docs.generate`"


def test_write_makes_every_page(tmp_path: Path) -> None:
    assert [p.name for p in write(tmp_path / "docs")] == list(PAGES)
    assert (tmp_path / "docs" / "schema.md").read_text(encoding="utf-8").startswith("# Schema reference")


def test_schema_reference_has_every_table_view_and_comment() -> None:
    from registry.models import Base
    from registry.postgres.surface import SURFACE_OBJECTS

    page = PAGES["schema.md"]()
    for table in Base.metadata.tables.values():
        assert f"\n## {table.name}\n" in page
        for column in table.columns:
            assert f"| `{column.name}` |" in page
            assert (column.comment or "").replace("|", "\\|") in page
    for surface in SURFACE_OBJECTS:
        kind, _, name = surface.partition(" ")
        assert (f"- `{name}`" if kind == "FUNCTION" else f"\n## {name}\n") in page


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_documented(name: str) -> None:
    command = COMMANDS[name]
    text = command.help or ""
    assert text.strip().splitlines()[0].endswith("."), "the first line is not a sentence"
    # In a raw docstring this would be two characters, and the examples would be wrapped.
    assert "\\b" not in text, "the docstring is raw"
    assert "\n\b\nExamples:\n" in text, "no examples in a paragraph of their own"
    examples = [line.strip() for line in text.partition("Examples:\n")[2].splitlines() if line.strip()]
    assert examples
    assert any(f"ecdreg {name}" in line for line in examples), "no example of this command"
    for parameter in command.params:
        if parameter.name != "help" and not getattr(parameter, "hidden", False):
            assert parameter.help, f"{parameter.name} has no help"


@pytest.mark.parametrize("name", sorted(n for n in set(COMMANDS) - WITHOUT_JSON if not n.startswith("plot ")))
def test_reading_command_takes_json(name: str) -> None:
    assert any("--json" in parameter.opts for parameter in COMMANDS[name].params)


def test_exceptions_exist() -> None:
    assert WITHOUT_JSON - set(COMMANDS) == set()
