"""``ecdreg reproduce`` and ``ecdreg plot`` on 24 crystals with a tiny image backbone."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

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
