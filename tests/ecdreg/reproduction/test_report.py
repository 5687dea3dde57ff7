"""Tables and pages of the reproduction of the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecdreg.reproduction.report import COLUMNS, fold_rows, reproduction_markdown, reproduction_page, table_rows
from train.paper.matrix import Plan, TableRow
from train.paper.reproduction import Line, Reproduction, Stat

if TYPE_CHECKING:
    pass


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
