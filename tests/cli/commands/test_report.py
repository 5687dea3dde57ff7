"""``ecdreg report``: the file that it writes, and errors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import Invoke


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
