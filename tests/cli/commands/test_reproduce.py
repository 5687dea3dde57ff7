"""``ecdreg reproduce`` and ``ecdreg plot`` on 24 crystals with a tiny image backbone."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from ecdreg.report.reproduction import COLUMNS, fold_rows, reproduction_markdown, reproduction_page, table_rows
from train.paper.matrix import Plan, TableRow
from train.paper.reproduction import Line, Reproduction, Stat

if TYPE_CHECKING:
    from tests.conftest import Invocation, Invoke

MINE = ("--split", "mine-{target}-{seed}")


@pytest.fixture
def reproduce(invoke: Invoke, crystals: dict[str, int], tiny_image: Path) -> Invoke:
    """Reproduce the image and text stages for k_vrh, quickly."""

    def run(*arguments: object) -> Invocation:
        return invoke(
            "reproduce", "paper", "--target", "k_vrh", "--text-level", "keywords", "--max-epochs", "2",
            "--image-backbone", tiny_image, *MINE, *arguments,
        )  # fmt: skip

    return run


def line(
    stage: str, text_level: str | None = None, *, r2: float = 0.9, kind: str | None = None, **changes: Any
) -> Line:
    """A line of K_VRH with made-up scores."""
    stat = {"r2": Stat(r2, 0.05, 15), "rmse": Stat(20.0, 2.5, 15), "mae": Stat(12.0, 1.0, 15)}
    fields: dict[str, Any] = {
        "target": "k_vrh",
        "unit": "GPa",
        "row": TableRow(stage, None if stage.startswith(("text", "baseline")) else "metric", text_level),
        "kind": kind or stage,
        "phase": "readout",
        "last": True,
        "runs": 3,
        "n_cv": 300,
        "n_holdout": 60,
        "scores": {"train": stat, "val": stat, "test": {name: Stat(s.mean, None, 1) for name, s in stat.items()}},
        "first_fold": {name: Stat(s.mean, None, 1) for name, s in stat.items()},
        "experiments": (1, 2, 3),
    }
    return Line(**(fields | changes))


def test_the_table_has_the_layout_of_the_paper_and_the_published_numbers() -> None:
    lines = [
        line("baseline-magpie"),
        line("image"),
        line("text", "all"),
        line("image+text", "all", last=False),
        line("image+text", "all", phase="finetune"),
        line("clip", "all", kind="dual-encoder"),
    ]
    rows = table_rows(lines)
    assert all(set(row) == set(COLUMNS) for row in rows)
    assert [row["model"] for row in rows] == ["baseline-magpie", "image", "text", "image+text", "clip (dual-encoder)"]
    stack = rows[3]
    assert (stack["val"], stack["test"]) == ("0.90 ± 0.05 / 20.0 ± 2.5", "0.90 / 20.0")
    # Figure 2 of the paper, and its table for CLIP.
    assert (stack["published_train"], stack["published_test"]) == ("0.92 / 21.6", "0.71 / 37.8")
    assert (rows[4]["published_train"], rows[4]["published_val"]) == ("", "0.90 / 22.4")
    assert rows[0]["published_test"] == ""
    assert [row["model"] for row in table_rows(lines, phases=True)][3:5] == ["image+text, readout", "image+text"]
    (first,) = fold_rows(lines)
    assert (first["model"], first["first"], first["published_first"]) == ("clip (dual-encoder)", "0.90 / 20.0", "0.80")
    assert first["published_all"] == "0.90 / 22.4"


def test_pages_have_the_tables_and_the_failed_experiments() -> None:
    made = Reproduction(Plan(), (line("image", r2=-0.123), line("clip", "all", kind="clip")), (), ())
    page = reproduction_markdown(made, title="The <paper>", command="ecdreg reproduce paper", seconds=130.0)
    assert page.startswith("# The <paper>\n\n`ecdreg reproduce paper`, 2 min.\n")
    assert "| image |  | metric | 3 | -0.12 ± 0.05 / 20.0 ± 2.5 |" in page
    assert "## First fold only" in page
    assert "arXiv 2401.09301" in page
    html = reproduction_page(made, title="The <paper>", command="a & b", seconds=3.0)
    assert "The &lt;paper&gt;" in html
    assert "<code>a &amp; b</code>, 3 s" in html
    assert "<td>-0.12 ± 0.05 / 20.0 ± 2.5</td>" in html
    assert html.count('src="data:image/png;base64,') == html.count("<img") == 1
    assert "<script" not in html
    assert "http" not in html.replace("http-equiv", "")


def test_the_paper_is_reproduced_on_splits_made_by_its_rule(
    reproduce: Invoke, invoke: Invoke, tmp_path: Path, engine: Engine
) -> None:
    missing = reproduce("--seed", "1", "--stage", "image")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "no split 'mine-k_vrh-1' for k_vrh" in missing.stderr
    assert "--make-splits" in missing.stderr

    stages = ("--stage", "image", "--stage", "text")
    page = tmp_path / "paper.html"
    made = reproduce("--seed", "1", *stages, "--make-splits", "--iqr", "0", "-o", page)
    assert made.exit_code == 0, made.stderr
    assert "created split 'mine-k_vrh-1' for k_vrh" in made.stderr
    assert "k_vrh [GPa]" in made.stdout
    assert all(name in made.stdout for name in ("baseline-mean", "baseline-magpie", "image", "text", "published test"))
    assert "<img alt=" in page.read_text(encoding="utf-8")

    # Nothing is repeated; the same numbers, all of them.
    again = reproduce("--seed", "1", *stages, "--json")
    rows = json.loads(again.stdout)["rows"]
    assert [(row["stage"], row["phase"]) for row in rows] == [
        ("baseline-mean", "fit"), ("baseline-magpie", "fit"), ("image", "readout"), ("text", "readout"),
    ]  # fmt: skip
    assert rows[2]["published_test_r2"] == pytest.approx((0.84 + 0.84 + 0.79) / 3)
    table = list(csv.DictReader(io.StringIO(reproduce("--seed", "1", *stages, "--csv").stdout)))
    assert float(table[3]["val_rmse"]) == rows[3]["val_rmse"]
    with Session(engine) as session:
        from registry.models import Experiment

        assert session.query(Experiment).count() == 4

    # Finished experiments are listed while others are missing.
    listed = reproduce("--seed", "1", "--seed", "2", *stages, "--show")
    assert "4 of 8 experiments are finished" in listed.stderr
    assert listed.exit_code == 0


def test_missing_recipes_are_left_out_with_a_warning(
    invoke: Invoke, crystals: dict[str, int], tiny_image: Path, tmp_path: Path
) -> None:
    tables = tmp_path / "ablation.md"
    made = invoke(
        "reproduce", "ablation", "--target", "k_vrh", "--seed", "1", *MINE, "--make-splits", "--max-epochs", "1",
        "--image-backbone", tiny_image, "--recipe", "metric", "--recipe", "paper-total", "--recipe", "paper",
        "-o", tables,
    )  # fmt: skip
    assert made.exit_code == 0, made.stderr
    warnings = [line for line in made.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2
    assert "recipe paper-total is excluded: 23 of 23 members" in warnings[0]
    assert "`ecdreg ingest --recipe paper-total`" in warnings[0]
    assert "spin density" in warnings[1]
    assert "| image |  | metric | 1 |" in tables.read_text(encoding="utf-8")


def test_unusable_options_are_refused(invoke: Invoke, crystals: dict[str, int], tmp_path: Path) -> None:
    for arguments, message in (
        (("--split", "mine-{tarket}"), "a template may contain {target} and {seed}"),
        (("--stage", "picture"), "stages holds 'picture'"),
        (("--target", "g_vrh"), "no published seeds for 'g_vrh'"),
        (("-o", tmp_path / "paper.docx"), "must end in .html or .md"),
        (("-o", tmp_path / "nowhere" / "paper.md"), "no such folder"),
    ):
        refused = invoke("reproduce", "paper", *arguments)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert message in refused.stderr


def test_figures_are_drawn_from_the_registry(invoke: Invoke, crystals: dict[str, int], tmp_path: Path) -> None:
    composition = tmp_path / "composition.png"
    assert invoke("plot", "composition", "-o", composition).exit_code == 0
    assert composition.read_bytes().startswith(b"\x89PNG")
    first = composition.read_bytes()
    invoke("plot", "composition", "-o", composition)
    assert composition.read_bytes() == first

    slices = tmp_path / "fourier.html"
    assert invoke("plot", "fourier", "mp-1", "mp-2", "-o", slices).exit_code == 0
    assert "data:image/png;base64," in slices.read_text(encoding="utf-8")

    lacking = invoke("plot", "density", "mp-1", "--kind", "total", "--kind", "spin", "-o", tmp_path / "d.png")
    assert lacking.exit_code == 1
    assert "has no spin density; available: deformation, total" in lacking.stderr
    assert "no finished experiment on the splits" in invoke("plot", "scores", "-o", tmp_path / "s.png").stderr
    refused = invoke("plot", "fourier", "-o", tmp_path / "f.gif")
    assert refused.exit_code == 2
    assert "must end in .png, .svg, .pdf or .html" in refused.stderr
    assert invoke("plot", "density", "--kind", "total", "-o", tmp_path / "d.png").exit_code == 2


def test_scores_and_curves_are_drawn(tmp_path: Path) -> None:
    import numpy as np

    from ecdreg.figures.curves import Curve, draw_curves
    from ecdreg.figures.files import write_figure
    from ecdreg.figures.scores import draw_scores

    lines = [
        changed
        for target in ("formation_energy_per_atom", "k_vrh")
        for changed in (
            line("baseline-magpie", target=target),
            line("image", target=target),
            line("text", "formula", target=target),
            line("image+text", "formula", target=target),
        )
    ]
    figure = draw_scores(lines)
    # A column for each target, and panel c for their average.
    assert [panel.get_title(loc="left") for panel in figure.axes[:3]] == [
        "a  formation_energy_per_atom",
        "b  k_vrh",
        "c  average over targets",
    ]
    (legend,) = figure.legends
    labels = [entry.get_text() for entry in legend.get_texts()]
    assert labels == ["image", "text", "image+text", "published", "composition baseline"]
    write_figure(figure, tmp_path / "scores.svg")

    curves = [
        Curve("image:k_vrh@1", "readout", fold, np.geomspace(1, 0.1, 5 + fold), np.geomspace(1, 0.3, 5 + fold), 3)
        for fold in range(3)
    ]
    write_figure(draw_curves(curves), tmp_path / "curves.pdf")
    assert (tmp_path / "scores.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert (tmp_path / "curves.pdf").read_bytes().startswith(b"%PDF")
