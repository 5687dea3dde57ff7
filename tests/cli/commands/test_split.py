"""``ecdreg split``: create, import, show and list; errors name the value and the remedy."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.conftest import Invoke


@pytest.fixture
def split_file(tmp_path: Path) -> Path:
    """All 24 crystals in two folds and a holdout, and one that is not registered."""
    path = tmp_path / "paper.csv"
    rows = [(f"mp-{i + 1}", *(("holdout", "") if i % 4 == 3 else ("cv", i % 2))) for i in range(24)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([("id", "subset", "fold"), *rows, ("mp-999", "cv", 1)])
    return path


def test_create_makes_one_split_per_target(invoke: Invoke, crystals: dict[str, int]) -> None:
    done = invoke(
        "split", "create", "mine", "--target", "k_vrh", "--target", "efermi", "--folds", 3, "--holdout", 0.25, "--json"
    )
    assert (done.exit_code, done.stderr) == (0, "")
    made = {s["target"]: s for s in json.loads(done.stdout)}
    assert set(made) == {"k_vrh", "efermi"}
    assert made["k_vrh"]["excluded"] == 1  # its label is impossible
    assert made["k_vrh"]["reasons"] == {"suspect": 1}
    assert made["efermi"]["excluded"] == 0
    for summary in made.values():
        assert summary["cv"] + summary["holdout"] + summary["excluded"] == 24
        assert sum(summary["folds"].values()) == summary["cv"]
        assert sorted(summary["folds"]) == ["0", "1", "2"]


def test_create_again_is_the_same_split(invoke: Invoke, crystals: dict[str, int]) -> None:
    arguments = ("split", "create", "mine", "--target", "efermi", "--holdout", 0.25, "--folds", 3, "--json")
    assert json.loads(invoke(*arguments).stdout) == json.loads(invoke(*arguments).stdout)
    other = invoke(*arguments, "--seed", 1)
    assert other.exit_code == 1
    assert "choose another name" in other.stderr


def test_create_without_modalities(invoke: Invoke, crystals: dict[str, int]) -> None:
    done = invoke(
        "split", "create", "bare", "--target", "efermi", "--recipe", "none", "--text-level", "none", "--folds", 2,
        "--holdout", 0.3, "--json",
    )  # fmt: skip
    (made,) = json.loads(done.stdout)
    assert (made["parameters"]["recipe"], made["parameters"]["text_level"]) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("--target", "k_vhr"), 2, "k_vrh"),
        (("--folds", "1"), 2, "--folds"),
        (("--holdout", "1.5"), 2, "1.5"),
        (("--recipe", "metrik"), 1, "metric"),
        (("--iqr-kind", "spin"), 2, "IQR"),
        (("--target", "efermi", "--folds", "900"), 1, "fold"),
    ],
)
def test_create_refuses(
    invoke: Invoke, crystals: dict[str, int], arguments: tuple[str, ...], code: int, named: str
) -> None:
    done = invoke("split", "create", "bad", *arguments)
    assert done.exit_code == code
    assert done.stdout == ""
    assert named in done.stderr
    assert json.loads(invoke("split", "list", "--json").stdout) == []


def test_iqr_bounds_exclude_with_their_reason(invoke: Invoke, crystals: dict[str, int]) -> None:
    # Channel 0's maximum grows evenly with the number of the crystal: a factor of 0 keeps the middle half.
    done = invoke(
        "split", "create", "clean", "--target", "efermi", "--iqr", 0, "--iqr-kind", "metric:0", "--folds", 2,
        "--holdout", 0.3, "--json",
    )  # fmt: skip
    (made,) = json.loads(done.stdout)
    assert made["reasons"] == {"IQR": made["excluded"]}
    assert 10 <= made["excluded"] <= 16
    printed = invoke("split", "show", "clean", "--members").stdout
    low, high = made["iqr_bounds"]["channels"]["0"]["maximum"]
    assert f"efermi  metric  0        maximum       {low:.4g}" in printed
    assert f"{high:.4g}" in printed
    assert "IQR: maximum" in printed


def test_import_keeps_folds_and_excludes_unknown(invoke: Invoke, crystals: dict[str, int], split_file: Path) -> None:
    done = invoke("split", "import", split_file, "--target", "k_vrh", "--json")
    assert done.exit_code == 0
    (made,) = json.loads(done.stdout)
    assert (made["name"], made["origin"], made["seed"]) == ("paper", "file", None)
    assert made["reasons"] == {"suspect": 1, "unknown": 1}
    printed = invoke("split", "show", "paper", "--members", "--json")
    members = {m["source_id"]: m for m in json.loads(printed.stdout)[0]["members"]}
    assert members["mp-3"]["fold"] == 0
    assert members["mp-4"]["subset"] == "holdout"
    assert members["mp-999"] == {
        "revision_id": None,
        "source_id": "mp-999",
        "subset": "excluded",
        "fold": None,
        "reason": "unknown: no crystal 'mp-999' in the registry",
    }


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("id,subset\nmp-1,cv\n", "fold"),
        ("id,subset,fold\nmp-1,test,0\n", "line 2"),
        ("id,subset,fold\nmp-1,cv,zero\n", "zero"),
        (None, "paper.csv"),
    ],
)
def test_import_refuses_a_bad_file(
    invoke: Invoke, crystals: dict[str, int], split_file: Path, content: str | None, named: str
) -> None:
    split_file.unlink()
    if content is not None:
        split_file.write_text(content, encoding="utf-8")
    done = invoke("split", "import", split_file, "--target", "k_vrh")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert named in done.stderr


def test_import_needs_a_target(invoke: Invoke, split_file: Path) -> None:
    done = invoke("split", "import", split_file)
    assert done.exit_code == 2
    assert "--target" in done.stderr


def test_show_and_list_as_tables(invoke: Invoke, crystals: dict[str, int], split_file: Path) -> None:
    assert "no splits yet" in invoke("split", "list").stderr
    invoke("split", "import", split_file, "--target", "k_vrh")
    invoke("split", "create", "mine", "--target", "efermi", "--folds", 2, "--holdout", 0.3)
    listed = invoke("split", "list").stdout.splitlines()
    assert [line.split()[0] for line in listed[1:]] == ["mine", "paper"]
    printed = invoke("split", "show", "paper", "--members").stdout
    for expected in ("suspect", "unknown", "holdout", "mp-24", "file paper.csv", "recipe metric"):
        assert expected in printed


def test_errors_of_show_name_existing_splits(invoke: Invoke, crystals: dict[str, int], split_file: Path) -> None:
    invoke("split", "import", split_file, "--target", "k_vrh")
    for arguments in (("other",), ("paper", "--target", "efermi")):
        done = invoke("split", "show", *arguments)
        assert done.exit_code == 1
        assert done.stderr.count("\n") == 1
    assert "paper" in invoke("split", "show", "other").stderr
