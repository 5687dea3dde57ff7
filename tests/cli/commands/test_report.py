"""``ecdreg report``: the content of the report, its page, and the command."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ecdreg.figures.fields import field_scale, slices_figure
from ecdreg.figures.files import inline_svg
from ecdreg.figures.fold_curves import fold_curves_figure
from ecdreg.figures.predictions import parity_figure
from ecdreg.report.content import Point, ReportContent, read_content
from ecdreg.report.model import model_page
from registry.model_store import resolve_model
from tests.conftest import Invoke

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


@pytest.fixture
def content(engine: Engine, models: SimpleNamespace) -> ReportContent:
    with Session(engine) as session:
        (model,) = resolve_model(session, "image:k_vrh")
        found = read_content(session, model.experiment, model.model_version)
        session.expunge_all()
        return found


def test_content_is_read_from_the_registry(content: ReportContent) -> None:
    assert (content.target, content.unit, content.experiment.version) == ("k_vrh", "GPa", 2)
    assert [f.fold for f in content.folds] == [0, 1, 2]
    assert {f.score.rmse for f in content.folds} == {4.0}
    assert content.holdout is not None
    assert content.holdout.n == content.members["holdout"]
    assert sum(f.score.n for f in content.folds) == content.members["cv"]
    assert sum(content.members.values()) == 24
    # Crystal 7 has an impossible value: it is only among the excluded.
    assert [ident for ident, _ in content.excluded] == ["test:mp-8"]
    assert content.excluded[0][1].startswith("suspect")
    assert len(content.points) == 23
    assert {round(abs(p.error), 9) for p in content.points} == {4.0}
    assert all((p.spread == 2.0) == (p.subset == "holdout") for p in content.points)
    assert [(c.fold, c.best_epoch) for c in content.curves] == [(0, 2), (1, 2), (2, 2), (None, 2)]
    assert np.isnan(content.curves[-1].stop_loss).all()
    assert content.channels == ["total, (1-10), GGA", "deformation, (1-10), GGA"]
    assert content.window == (12.0, 12.0)


def test_samples_span_the_true_values(content: ReportContent) -> None:
    true = [s.true for s in content.samples]
    everything = [p.true for p in content.points]
    assert len(true) == 4
    assert true == sorted(t for t in true if t is not None)
    assert (true[0], true[-1]) == (min(everything), max(everything))
    assert all(s.pixels is not None and s.pixels.shape == (2, 24, 24) for s in content.samples)


def test_leaderboard_marks_the_reported_model(content: ReportContent) -> None:
    entries = {(entry.model, entry.version): entry for entry in content.leaderboard}
    assert {name for name, entry in entries.items() if entry.is_reported} == {("image", 2)}
    # In the order of the leaderboard: by the error in cross-validation.
    assert [entry.model for entry in content.leaderboard] == ["image", "image", "baseline-mean"]
    assert all(entry.same_rows for entry in content.leaderboard)


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


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="no predictions"):
        parity_figure([], target="k_vrh", unit="GPa")
    with pytest.raises(ValueError, match="no learning curves"):
        fold_curves_figure([])
    with pytest.raises(ValueError, match="no slices"):
        slices_figure([], channels=[], extent=None, unit=None)
    with pytest.raises(ValueError, match="no experiments"):
        model_page([])


def test_parity_of_a_single_point() -> None:
    point = Point("a:1", 1, "X", None, "validation", 0, 5.0, 5.0, None)
    assert inline_svg(parity_figure([point], target="k_vrh", unit="GPa"), "parity").startswith("<svg")


def test_signed_field_has_a_scale_around_zero() -> None:
    scale = field_scale([np.linspace(-1.0, 0.5, 101)])
    assert scale.signed
    assert scale.low == -scale.high
    assert not field_scale([np.linspace(-0.01, 3.0, 101)]).signed
    assert field_scale([np.zeros(9)]).high > 0


def test_command_writes_the_file(invoke: Invoke, models: SimpleNamespace, tmp_path: Path) -> None:
    out = tmp_path / "image.html"
    done = invoke("report", "image:k_vrh", "-o", out)
    assert (done.exit_code, done.stderr) == (0, "")
    assert str(out) in done.stdout
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["image.html"]


def test_command_reports_a_baseline_without_epochs(invoke: Invoke, models: SimpleNamespace, tmp_path: Path) -> None:
    out = tmp_path / "mean.html"
    assert invoke("report", "baseline-mean", "-o", out).exit_code == 0
    assert "fitted in one step" in out.read_text(encoding="utf-8")


def test_unknown_model_gets_the_names_of_models(invoke: Invoke, models: SimpleNamespace, tmp_path: Path) -> None:
    done = invoke("report", "imgae", "-o", tmp_path / "x.html")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "image:k_vrh@2" in done.stderr


@pytest.mark.parametrize("place", ["", "missing/x.html"])
def test_path_that_cannot_be_written_is_an_error(
    invoke: Invoke, models: SimpleNamespace, tmp_path: Path, place: str
) -> None:
    done = invoke("report", "image", "-o", tmp_path / place)
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "-o" in done.stderr
