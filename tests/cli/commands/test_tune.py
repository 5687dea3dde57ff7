"""``ecdreg tune``: the configurations that it finds, and errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Invoke


def test_what_was_found_can_be_trained(invoke: Invoke, crystals: dict[str, int], tmp_path: Path) -> None:
    invoke("split", "create", "default", "--target", "k_vrh")
    options = ("--target", "k_vrh", "-o", tmp_path)
    start = tmp_path / "start.toml"
    start.write_text("composition_widths = [8]\n[readout]\nlearning_rate = 0.01\nmax_epochs = 3\n", encoding="utf-8")
    made = invoke("tune", "composition", *options, "--trials", "2", "--config", start, "--json")
    assert made.exit_code == 0, made.stderr
    (result,) = json.loads(made.stdout)
    assert (result["finished"], result["made"], result["unit"]) == (2, 2, "GPa")
    assert result["best_rmse"] <= result["default_rmse"]
    file = tmp_path / "composition-k_vrh.toml"
    assert result["file"] == str(file)

    more = invoke("tune", "composition", *options, "--trials", "3", "--config", start)
    assert "3 (1 now" in more.stdout
    assert f"--config {file}" in more.stderr

    trained = invoke("train", "composition", "--target", "k_vrh", "--config", file, "--json")
    assert trained.exit_code == 0, trained.stderr
    found = next(e for e in json.loads(trained.stdout)["experiments"] if e["name"] == "composition")
    best = invoke("tune", "composition", *options, "--trials", "3", "--config", start, "--json")
    assert found["cv"]["rmse"] == pytest.approx(json.loads(best.stdout)[0]["best_rmse"], rel=1e-6)


def test_what_cannot_be_searched_is_refused(invoke: Invoke, crystals: dict[str, int], tmp_path: Path) -> None:
    nowhere = invoke("tune", "composition", "-o", tmp_path / "nowhere")
    assert (nowhere.exit_code, nowhere.stdout) == (2, "")
    assert "no folder" in nowhere.stderr
    unknown = invoke("tune", "picture", "-o", tmp_path)
    assert unknown.exit_code == 2
    assert "kind is 'picture'" in unknown.stderr
    missing = invoke("tune", "composition", "--split", "mine", "-o", tmp_path)
    assert missing.exit_code == 1
    assert "no split 'mine'" in missing.stderr
