"""``ecdreg tune`` and ``ecdreg train --config``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ecdreg.models.tuning import _first_trials, _options
from registry.errors import ConfigurationError
from tests.conftest import Invoke
from tests.train.conftest import flat_config
from train.config.files import read_config, toml_of
from train.config.kinds import parse_config
from train.config.options import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_configuration_survives_its_file(kind: str, tmp_path: Path) -> None:
    config = flat_config(kind, "efermi")
    file = tmp_path / "config.toml"
    file.write_text(toml_of(config), encoding="utf-8")
    assert parse_config({"target": "efermi", **read_config(file, kind)}) == config


def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    with pytest.raises(ConfigurationError, match=r"cannot read .*config.toml"):
        read_config(file, "image")
    file.write_text("kind = [", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="is not TOML"):
        read_config(file, "image")
    file.write_text('kind = "text"\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="of kind 'text', not 'image'"):
        read_config(file, "image")


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


@pytest.mark.parametrize(
    ("recipe", "dense", "first"),
    [
        ("metric-views", False, ("pixel_statistics", "regressor", 4)),
        ("metric", True, ("efficientnet_lite0", "network", 1)),
    ],
)
def test_the_first_trial_is_the_default_of_training(recipe: str, dense: bool, first: tuple[str, str, int]) -> None:
    (config,) = _first_trials("image", ["k_vrh"], _options("image", recipe, "all", None, dense=dense))
    fields = config.to_dict()
    features = fields["features"]
    assert (features["backbone"], fields["head"]["type"], features["views"]) == first
    assert features["recipe"] == recipe
