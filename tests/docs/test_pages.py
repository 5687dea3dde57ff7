"""The written pages: links, order, commands and paths that they name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
HISTORY = ROOT / "CHANGELOG.md"
WRITTEN = [
    page
    for page in PAGES
    if page != HISTORY and (page.parent != DOCS or page.name not in ("cli.md", "schema.md", "sql.md"))
]
CODE = ("registry", "ingest", "train", "ecdreg", "cli", "migrations", "tests", "docs")

LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(rf"^(?:{'|'.join(CODE)})/[\w./]+$")
README_LINES = 150


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def _anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _commands(page: Path) -> Iterator[str]:
    """Calls of ``ecdreg`` in the code of a page."""
    text = page.read_text(encoding="utf-8")
    for block in FENCE.findall(text):
        for line in block.splitlines():
            yield from re.findall(r"(?:^|[;$] ?)(ecdreg [a-z].*)$", line.strip())
    yield from (code for code in INLINE.findall(FENCE.sub("", text)) if re.match(r"ecdreg [a-z]", code))


def _problem(call: str, app: Any) -> str | None:
    """First word of a call that the command line does not accept."""
    command, parents = app, [app]
    for word in shlex.split(call, comments=True)[1:]:
        if word.startswith("-") and not re.match(r"-[\d.]", word):
            option = word.partition("=")[0]
            known = {
                name for parent in parents for param in parent.params for name in (*param.opts, *param.secondary_opts)
            }
            if option not in {*known, "-h", "--help"}:
                return option
        elif hasattr(command, "get_command"):
            command = command.get_command(typer.Context(command), word)
            if command is None:
                return word
            parents.append(command)
    return None


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", WRITTEN, ids=_name)
def test_commands_and_options_exist(page: Path) -> None:
    from cli.main import app

    command = typer.main.get_command(app)
    problems = [f"{call}: {word}" for call in _commands(page) if (word := _problem(call, command)) is not None]
    assert problems == []


@pytest.mark.parametrize("page", WRITTEN, ids=_name)
def test_paths_of_the_code_exist(page: Path) -> None:
    codes = INLINE.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
    assert [code for code in codes if PATH.match(code) and not (ROOT / code).exists()] == []


def test_pages_that_the_code_names_exist() -> None:
    modules = [module for folder in CODE for module in (ROOT / folder).rglob("*.py")]
    named = [(m, page) for m in modules for page in re.findall(r"docs/[\w/]+\.md", m.read_text(encoding="utf-8"))]
    assert [f"{_name(module)}: {page}" for module, page in named if not (ROOT / page).exists()] == []


@pytest.mark.parametrize("index", [DOCS / "index.md", DOCS / "lab" / "index.md"], ids=_name)
def test_index_lists_each_page(index: Path) -> None:
    folder = index.parent
    listed = {(folder / link).resolve() for link in LINK.findall(index.read_text(encoding="utf-8"))}
    own = {page for page in PAGES if page.is_relative_to(folder) and page.name != "index.md"}
    if folder == DOCS:
        own = {page for page in own if "lab" not in page.parts} | {DOCS / "lab" / "index.md"}
    assert {_name(page) for page in own - listed} == set()


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES
