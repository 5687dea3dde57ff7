"""Page of the report of a model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ecdreg import Registry
from ecdreg.report.content import ReportContent, read_content
from ecdreg.report.model import model_page
from registry.model_store import resolve_model
from registry.settings import Settings
from tests.conftest import Invoke


@pytest.fixture
def registry(settings: Settings, cluster_url: str) -> Iterator[Registry]:
    with Registry.open(settings.home, cluster_url) as opened:
        yield opened


def test_report_from_python_is_that_of_the_command(
    invoke: Invoke, registry: Registry, models: SimpleNamespace, tmp_path: Path
) -> None:
    by_command, by_python = tmp_path / "command.html", tmp_path / "python.html"
    assert invoke("report", "image:k_vrh", "-o", by_command).exit_code == 0
    assert registry.report("image:k_vrh", by_python) == by_python
    pages = [re.sub(r"<footer>.*</footer>", "", p.read_text("utf-8"), flags=re.DOTALL) for p in (by_command, by_python)]
    assert pages[0] == pages[1]


VOID = {"meta", "br", "img", "hr", "link", "input"}


class Page(HTMLParser):
    """Collects text by tag, attributes that could make a browser request something, and open tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_model_scored_on_other_rows_is_marked(engine: Engine, models: SimpleNamespace) -> None:
    from sqlalchemy import text

    with Session(engine) as session:
        session.execute(
            text(
                "DELETE FROM predictions WHERE (model_version_id, revision_id) = (SELECT min(model_version_id),"
                " min(revision_id) FROM v_predictions WHERE model = 'baseline-mean' AND fold = 0)"
            )
        )
        (model,) = resolve_model(session, "image:k_vrh")
        found = read_content(session, model.experiment, model.model_version)
        assert {entry.model: entry.same_rows for entry in found.leaderboard} == {"image": True, "baseline-mean": False}
        assert "not comparable row by row: baseline-mean" in model_page([found])


def test_page_is_well_formed_and_self_contained(content: ReportContent) -> None:
    html = model_page([content])
    page = Page(html)
    assert page.open == []
    assert page.tags & {"script", "link", "iframe", "object", "embed"} == set()
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert re.findall(r"url\((?!#)[^)]*\)|@import", html) == []
    assert "<!DOCTYPE svg" not in html
    assert len(page.ids) == len(set(page.ids)), "ids of two figures collide"
    text = " ".join(page.text)
    for expected in ("image for k_vrh [GPa]", "baseline-mean", "e/Å^3", "not an error bar", "test:mp-8", "suspect"):
        assert expected in text
    assert "<Rock Salt>" not in html, "texts are escaped"
    assert model_page([content]) == html, "the same each time"


def test_several_targets_share_a_page(content: ReportContent) -> None:
    from dataclasses import replace

    short = replace(content, samples=[], curves=[])
    page = Page(model_page([short, replace(short, target="efermi")]))
    assert [i for i in page.ids if i in ("k_vrh", "efermi")] == ["k_vrh", "efermi"]
    assert "#efermi" in page.links
    assert len(page.ids) == len(set(page.ids)), "ids of two sections collide"


def test_reference_model_has_its_training_data(content: ReportContent) -> None:
    from dataclasses import replace

    reference = replace(content.leaderboard[0], model="cgcnn", trained_on="Materials Project: not leakage-free")
    page = model_page([replace(content, leaderboard=[*content.leaderboard, reference], samples=[], curves=[])])
    assert "cgcnn*" in page
    assert "trained elsewhere, on: Materials Project: not leakage-free" in page
    assert "image*" not in page
