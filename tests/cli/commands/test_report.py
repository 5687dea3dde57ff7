"""The report shows what the registry holds, in one file that asks nobody for anything."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ecdreg.report import figures
from ecdreg.report.content import Point, ReportContent, collect
from ecdreg.report.page import render
from registry.model_store import resolve_model

VOID = {"meta", "br", "img", "hr", "link", "input"}


class Page(HTMLParser):
    """Collects text by tag, attributes that could make a browser ask for something, and open tags."""

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


@pytest.fixture
def content(engine: Engine, models: SimpleNamespace) -> ReportContent:
    with Session(engine) as session:
        (model,) = resolve_model(session, "image:k_vrh")
        found = collect(session, model.experiment, model.model_version)
        session.expunge_all()
        return found


def test_content_is_what_the_registry_holds(content: ReportContent) -> None:
    assert (content.target, content.unit, content.experiment.version) == ("k_vrh", "GPa", 2)
    assert [f.fold for f in content.folds] == [0, 1, 2]
    assert {f.score.rmse for f in content.folds} == {4.0}
    assert content.holdout is not None
    assert content.holdout.n == content.members["holdout"]
    assert sum(f.score.n for f in content.folds) == content.members["cv"]
    assert sum(content.members.values()) == 24
    # Crystal 7 has an impossible label: it is nowhere but among the excluded.
    assert [ident for ident, _ in content.excluded] == ["test:mp-8"]
    assert content.excluded[0][1].startswith("suspect")
    assert len(content.points) == 23
    assert {round(abs(p.error), 9) for p in content.points} == {4.0}
    assert all((p.spread == 2.0) == (p.subset == "holdout") for p in content.points)
    assert [(c.fold, c.best_epoch) for c in content.curves] == [(0, 2), (1, 2), (2, 2), (None, 2)]
    assert np.isnan(content.curves[-1].stop_loss).all()
    assert content.channels == ["total, (1-10), GGA", "deformation, (1-10), GGA"]
    assert content.window == (12.0, 12.0)


def test_samples_span_the_labels(content: ReportContent) -> None:
    true = [s.true for s in content.samples]
    everything = [p.true for p in content.points]
    assert len(true) == 4
    assert true == sorted(t for t in true if t is not None)
    assert (true[0], true[-1]) == (min(everything), max(everything))
    assert all(s.pixels is not None and s.pixels.shape == (2, 24, 24) for s in content.samples)


def test_rivals_are_marked_with_their_rows(content: ReportContent) -> None:
    rivals = {(r.model, r.version): r for r in content.rivals}
    assert {name for name, r in rivals.items() if r.this} == {("image", 2)}
    # Sorted as the leaderboard is: by the error in cross-validation.
    assert [r.model for r in content.rivals] == ["image", "image", "baseline-mean"]
    assert all(r.same_rows for r in content.rivals)


def test_a_rival_with_other_rows_is_told_apart(engine: Engine, models: SimpleNamespace) -> None:
    from sqlalchemy import text

    with Session(engine) as session:
        session.execute(
            text(
                "DELETE FROM predictions WHERE (model_version_id, revision_id) = (SELECT min(model_version_id),"
                " min(revision_id) FROM v_predictions WHERE model = 'baseline-mean' AND fold = 0)"
            )
        )
        (model,) = resolve_model(session, "image:k_vrh")
        found = collect(session, model.experiment, model.model_version)
        assert {r.model: r.same_rows for r in found.rivals} == {"image": True, "baseline-mean": False}
        assert "not comparable row by row: baseline-mean" in render([found])


def test_page_is_well_formed_and_self_contained(content: ReportContent) -> None:
    html = render([content])
    page = Page(html)
    assert page.open == []
    assert page.tags & {"script", "link", "iframe", "object", "embed"} == set()
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert re.findall(r"url\((?!#)[^)]*\)|@import", html) == []
    assert "<!DOCTYPE svg" not in html
    assert len(page.ids) == len(set(page.ids)), "ids of two figures collide"
    text = " ".join(page.text)
    for expected in ("image for k_vrh [GPa]", "baseline-mean", "e/Å^3", "no error bar", "test:mp-8", "suspect"):
        assert expected in text
    assert "<Rock Salt>" not in html, "texts are escaped"
    assert render([content]) == html, "the same each time"


def test_several_targets_share_a_page(content: ReportContent) -> None:
    from dataclasses import replace

    short = replace(content, samples=[], curves=[])
    page = Page(render([short, replace(short, target="efermi")]))
    assert [i for i in page.ids if i in ("k_vrh", "efermi")] == ["k_vrh", "efermi"]
    assert "#efermi" in page.links
    assert len(page.ids) == len(set(page.ids)), "ids of two sections collide"


def test_a_peer_says_what_it_was_trained_on(content: ReportContent) -> None:
    from dataclasses import replace

    peer = replace(content.rivals[0], model="cgcnn", trained_on="Materials Project: not leakage-free")
    page = render([replace(content, rivals=[*content.rivals, peer], samples=[], curves=[])])
    assert "cgcnn*" in page
    assert "trained elsewhere, on: Materials Project: not leakage-free" in page
    assert "image*" not in page


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="no predictions"):
        figures.parity([], target="k_vrh", unit="GPa")
    with pytest.raises(ValueError, match="no learning curves"):
        figures.learning_curves([], target="k_vrh")
    with pytest.raises(ValueError, match="no slices"):
        figures.slices([], channels=[], extent=None, unit=None, target="k_vrh")
    with pytest.raises(ValueError, match="no experiments"):
        render([])


def test_parity_survives_one_point() -> None:
    point = Point("a:1", 1, "X", None, "validation", 0, 5.0, 5.0, None)
    assert figures.parity([point], target="k_vrh", unit="GPa").startswith("<svg")


def test_signed_fields_get_a_scale_around_zero() -> None:
    scale = figures.field_scale([np.linspace(-1.0, 0.5, 101)])
    assert scale.signed
    assert scale.low == -scale.high
    assert not figures.field_scale([np.linspace(-0.01, 3.0, 101)]).signed
    assert figures.field_scale([np.zeros(9)]).high > 0


def test_command_writes_the_file(invoke: Callable[..., Any], models: SimpleNamespace, tmp_path: Path) -> None:
    out = tmp_path / "image.html"
    done = invoke("report", "image:k_vrh", "-o", out)
    assert (done.exit_code, done.stderr) == (0, "")
    assert str(out) in done.stdout
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["image.html"]


def test_command_reports_a_baseline_without_epochs(
    invoke: Callable[..., Any], models: SimpleNamespace, tmp_path: Path
) -> None:
    out = tmp_path / "mean.html"
    assert invoke("report", "baseline-mean", "-o", out).exit_code == 0
    assert "fitted in one go" in out.read_text(encoding="utf-8")


def test_command_names_what_there_is(invoke: Callable[..., Any], models: SimpleNamespace, tmp_path: Path) -> None:
    done = invoke("report", "imgae", "-o", tmp_path / "x.html")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "image:k_vrh@2" in done.stderr


@pytest.mark.parametrize("place", ["", "missing/x.html"])
def test_command_says_when_it_cannot_write(
    invoke: Callable[..., Any], models: SimpleNamespace, tmp_path: Path, place: str
) -> None:
    done = invoke("report", "image", "-o", tmp_path / place)
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "-o" in done.stderr
