"""``ecdreg models``: list, show and alias."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from tests.conftest import Invoke


def test_nothing_yet(invoke: Invoke) -> None:
    done = invoke("models", "list")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "ecdreg train" in done.stderr
    assert json.loads(invoke("models", "list", "--json").stdout) == []


def test_list_has_every_version_with_its_scores(invoke: Invoke, models: SimpleNamespace) -> None:
    rows = json.loads(invoke("models", "list", "--json").stdout)
    assert [(r["name"], r["version"]) for r in rows] == [("baseline-mean", 1), ("image", 2), ("image", 1)]
    newest = rows[1]
    assert (newest["split"], newest["unit"], newest["status"]) == ("default", "GPa", "finished")
    # All folds have the same scores, so the deviation is zero.
    assert (newest["cv_rmse"], newest["cv_rmse_sd"]) == (4.0, 0.0)
    assert newest["cv_r2"] == pytest.approx(0.96)
    assert newest["holdout_rmse"] == 4.0
    assert newest["n_cv"] + newest["n_holdout"] == 23
    table = invoke("models", "list", "--target", "k_vrh").stdout
    assert "0.96 ± 0" in table
    assert json.loads(invoke("models", "list", "--target", "efermi", "--json").stdout) == []
    assert invoke("models", "list", "--target", "k_vhr").exit_code == 2


def test_show_has_configuration_folds_and_scores(invoke: Invoke, models: SimpleNamespace) -> None:
    (card,) = json.loads(invoke("models", "show", "image:k_vrh@1", "--json").stdout)
    assert (card["model"], card["target"], card["version"], card["split"]) == ("image", "k_vrh", 1, "default")
    assert card["config"]["head"]["dropout"] == 0.08
    assert [(v["fold"], v["phase"], v["epochs"]) for v in card["versions"]] == [
        (0, "readout", 3),
        (1, "readout", 3),
        (2, "readout", 3),
        (None, "readout", 3),
    ]
    assert card["cv"]["folds"] == 3
    assert (card["cv"]["rmse"], card["cv"]["rmse_sd"]) == (8.0, 0.0)
    assert card["holdout"] == {"n": card["holdout"]["n"], "r2": 0.92, "rmse": 8.0, "mae": 8.0}
    refit = card["versions"][-1]
    assert refit["artifact_uri"].startswith(refit["artifact_sha256"][:2])
    printed = invoke("models", "show", "image").stdout
    for expected in (
        "image:k_vrh [GPa] version 2",
        "refit",
        "mean ± sd",
        "head.dropout = 0.04",
        "modality = image",
        refit["status"][:0],
    ):
        assert expected in printed


def test_alias_points_and_moves(invoke: Invoke, models: SimpleNamespace) -> None:
    for version in (1, 2):
        done = invoke("models", "alias", f"image:k_vrh@{version}", "best", "--json")
        assert json.loads(done.stdout) == [{"model": "image", "target": "k_vrh", "version": version, "alias": "best"}]
        (card,) = json.loads(invoke("models", "show", "image:k_vrh@best", "--json").stdout)
        assert (card["version"], card["aliases"]) == (version, ["best"])
    assert "image @best" in invoke("models", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("show", "imgae"), 1, "image:k_vrh@2"),
        (("show", "image:k_vhr"), 2, "k_vrh"),
        (("show", "image@9"), 1, "image@9"),
        (("alias", "image:k_vrh", "9lives"), 2, "9lives"),
        (("alias", "image:k_vrh", "latest"), 2, "latest"),
    ],
)
def test_errors_are_one_line(
    invoke: Invoke, models: SimpleNamespace, arguments: tuple[str, ...], code: int, named: str
) -> None:
    done = invoke("models", *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.count("\n") == 1
    assert named in done.stderr
