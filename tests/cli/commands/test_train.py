"""``ecdreg train`` and ``ecdreg leaderboard`` on 24 crystals with tiny backbones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, text

if TYPE_CHECKING:
    from tests.conftest import Invocation, Invoke

QUICK = ("--max-epochs", "2", "--no-finetune")


@pytest.fixture
def train(invoke: Invoke, crystals: dict[str, int], tiny_image: Path) -> Invoke:
    """Train the image tower for k_vrh, quickly."""

    def run(*arguments: object) -> Invocation:
        return invoke("train", "image", "--target", "k_vrh", "--image-backbone", tiny_image, *QUICK, *arguments)

    return run


def test_training_creates_split_baselines_and_leaderboard(train: Invoke, invoke: Invoke, engine: Engine) -> None:
    made = train("--name", "tiny")
    assert made.exit_code == 0, made.stderr
    assert "made split 'default' for k_vrh: " in made.stderr
    assert "1 excluded (suspect 1" in made.stderr or "excluded (1 suspect)" in made.stderr
    assert "ecdreg predict tiny ID" in made.stderr
    assert "k_vrh, split 'default'" in made.stdout
    assert all(name in made.stdout for name in ("tiny", "baseline-mean", "baseline-magpie", "cv RMSE [GPa]", "±"))

    # The same again is reported, not repeated.
    again = train("--name", "tiny")
    assert "tiny:k_vrh@1 had been trained already; --again trains a new version" in again.stderr
    assert "made split" not in again.stderr

    printed = invoke("leaderboard", "--target", "k_vrh", "--json")
    rows = json.loads(printed.stdout)
    assert {row["model"] for row in rows} == {"tiny", "baseline-mean", "baseline-magpie"}
    with engine.connect() as connection:
        best = connection.scalar(text("SELECT min(cv_rmse) FROM v_leaderboard"))
    assert rows[0]["cv_rmse"] == best
    assert "baseline-magpie" in invoke("leaderboard").stdout
    assert invoke("leaderboard", "--split", "none").stdout == ""

    # The trained model predicts.
    predicted = invoke("predict", "tiny", "mp-1", "test:mp-2", "--json")
    assert predicted.exit_code == 0, predicted.stderr
    one, two = json.loads(predicted.stdout)
    assert (one["id"], two["id"], one["unit"], one["model"]) == ("test:mp-1", "test:mp-2", "GPa", "tiny:k_vrh@1")
    assert {one["subset"], two["subset"]} <= {"validation", "holdout"}
    assert one["known"] == 40.0
    suspect = invoke("predict", "tiny:k_vrh@best", "mp-8")
    assert suspect.exit_code == 0, suspect.stderr
    assert "none" in suspect.stdout
    unknown = invoke("predict", "tiny", "mp-999")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("error: no crystal 'mp-999'")
    missing = invoke("predict", "tiny", "--structure", "x.cif")
    assert missing.exit_code == 1
    assert "reads slices of the charge density; give a density file" in missing.stderr


def test_a_note_counts_crystals_outside_of_the_split(train: Invoke, invoke: Invoke, engine: Engine) -> None:
    made = invoke("split", "create", "early", "--target", "k_vrh")
    assert made.exit_code == 0, made.stderr
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM split_members WHERE source_id IN ('test:mp-1', 'test:mp-2')"))
    trained = invoke(
        "train", "baseline", "--target", "k_vrh", "--split", "early", "--json"
    )  # fmt: skip
    assert trained.exit_code == 0, trained.stderr
    assert "2 crystals came after split 'early' for k_vrh was made; `ecdreg split create NAME" in trained.stderr
    result = json.loads(trained.stdout)
    assert [e["outcome"] for e in result["experiments"]] == ["trained", "trained"]
    assert {row["model"] for row in result["leaderboard"]} == {"baseline-mean", "baseline-magpie"}


def test_a_registry_of_images_alone_is_trained_on_explicitly(train: Invoke, invoke: Invoke, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM descriptions"))
    refused = train()
    assert (refused.exit_code, refused.stdout) == (1, "")
    trained = train("--text-level", "none")
    assert trained.exit_code == 0, trained.stderr
    assert "made split 'default' for k_vrh: " in trained.stderr
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT parameters->>'recipe' FROM splits")) == "metric"
        assert connection.scalar(text("SELECT parameters->>'text_level' FROM splits")) is None
        connection.execute(text("DELETE FROM slice_images"))
    bare = invoke("train", "baseline", "--target", "efermi", "--recipe", "none", "--text-level", "none")
    assert bare.exit_code == 0, bare.stderr
    assert "made split 'default' for efermi: " in bare.stderr


def test_errors_are_one_line(invoke: Invoke, crystals: dict[str, int]) -> None:
    cases = {
        ("image", "--target", "k_vhr"): (2, "no property 'k_vhr'; did you mean 'k_vrh'?"),
        ("image", "--target", "k_vrh", "--split", "mine"): (1, "no split 'mine' for k_vrh"),
        ("image", "--target", "k_vrh", "--recipe", "paper"): (1, "no images of recipe 'paper'; there are: metric"),
        ("text", "--target", "k_vrh", "--text-level", "long"): (2, "text_level is 'long'; input should be"),
        ("text", "--target", "k_vrh", "--text-level", "none"): (2, "text_level is 'none'; input should be"),
        ("image", "--target", "k_vrh", "--recipe", "none"): (2, "reads images, and the recipe is none"),
        ("image", "--target", "k_vrh", "--name", "mine:k@1"): (2, "'mine:k@1' cannot be the name of a model"),
        ("stacked", "--target", "k_vrh", "--stack-features", "x"): (2, "tower_features is 'x'; input should be"),
    }
    for arguments, (code, message) in cases.items():
        failed = invoke("train", *arguments)
        assert failed.exit_code == code, (arguments, failed.stderr)
        (line,) = [one for one in failed.stderr.splitlines() if one.startswith("error: ")]
        assert message in line


def test_an_empty_leaderboard_has_a_note(invoke: Invoke) -> None:
    printed = invoke("leaderboard")
    assert printed.exit_code == 0
    assert "ecdreg train stacked" in printed.stderr
    assert json.loads(invoke("leaderboard", "--json").stdout) == []


def test_a_stack_reads_what_its_towers_read(invoke: Invoke, crystals: dict[str, int], engine: Engine) -> None:
    options = ("--target", "k_vrh", "--towers", "text,composition", *QUICK)
    made = invoke("train", "stacked", *options)
    assert made.exit_code == 0, made.stderr
    assert all(name in made.stdout for name in ("stacked", "text", "composition", "baseline-magpie"))
    with engine.connect() as connection:
        found = dict(connection.execute(text("SELECT kind, config FROM experiments")).all())
    assert found["stacked"]["join"]["name"] == "gaussian-process"
    assert [tower["features"]["backbone"] for tower in found["stacked"]["towers"]] == ["minilm", "elements"]
    assert found["composition"]["head"] == {"type": "regressor", "name": "gaussian-process"}
    assert found["text"]["training"]["readout"]["max_epochs"] == 2
    predicted = invoke("predict", "stacked:k_vrh", "mp-1", "--json")
    assert json.loads(predicted.stdout)[0]["predicted"] > 0


def test_two_models_are_compared_on_the_rows_of_both(train: Invoke, invoke: Invoke) -> None:
    assert train("--name", "tiny").exit_code == 0
    printed = invoke("models", "compare", "tiny", "baseline-mean", "--json")
    assert printed.exit_code == 0, printed.stderr
    (one,) = json.loads(printed.stdout)  # of the targets, the one that both were trained for
    assert (one["target"], one["splits"], one["verdict"]) == ("k_vrh", ["default"], one["verdict"])
    assert one["low"] <= one["difference"] <= one["high"]
    assert one["difference"] == pytest.approx(one["rmse"] - one["other_rmse"])
    folds = json.loads(invoke("models", "compare", "tiny", "baseline-magpie", "--cv", "--json").stdout)
    assert folds[0]["n_rows"] > one["n_rows"]
    gone = invoke("models", "compare", "tiny", "nothing")
    assert gone.exit_code == 1
    assert "no holdout prediction of k_vrh in common" in gone.stderr
