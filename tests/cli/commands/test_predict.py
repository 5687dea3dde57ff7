"""``ecdreg predict`` for files: the very same pipeline as an ingest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Invoke


@pytest.fixture
def magpie(invoke: Invoke, crystals: dict[str, int]) -> None:
    """The composition baseline for k_vrh."""
    assert invoke("train", "baseline", "--target", "k_vrh").exit_code == 0


POSCAR = """MgO
4.21
0.0 0.5 0.5
0.5 0.0 0.5
0.5 0.5 0.0
Mg O
1 1
direct
0.0 0.0 0.0
0.5 0.5 0.5
"""


def test_a_structure_file_is_predicted_without_being_registered(
    invoke: Invoke, magpie: None, tmp_path: Path, crystals: dict[str, int]
) -> None:
    file = tmp_path / "MgO.vasp"
    file.write_text(POSCAR)
    done = invoke("predict", "baseline-magpie:k_vrh", "--structure", file, "--json")
    assert done.exit_code == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["formula"], row["unit"], row["known"]) == ("MgO", "GPa", None)
    # The registry has this material, and the model was fitted to it: no prediction of an unseen crystal.
    assert row["subset"] == "train"
    other = tmp_path / "CsI.vasp"
    other.write_text(POSCAR.replace("Mg O", "Cs I"))
    (unseen,) = json.loads(invoke("predict", "baseline-magpie:k_vrh", "--structure", other, "--json").stdout)
    assert (unseen["formula"], unseen["subset"]) == ("CsI", "none")
    assert row["spread"] > 0
    assert row["confidence"] == 0.9
    for option in ("--confidence", "--interval"):
        (narrower,) = json.loads(
            invoke("predict", "baseline-magpie", "--structure", file, option, 0.5, "--json").stdout
        )
        assert narrower["confidence"] == 0.5
        assert row["lower"] < narrower["lower"] < narrower["upper"] < row["upper"]
    kept = json.loads(invoke("predict", "baseline-magpie:k_vrh", "mp-4", "--json").stdout)  # MgO of the registry
    assert kept[0]["formula"] == "MgO"
    table = invoke("predict", "baseline-magpie", "--structure", file).stdout
    assert "baseline-magpie:k_vrh@1" in table


def test_a_suspect_known_value_is_marked(invoke: Invoke, magpie: None) -> None:
    # Crystal 7 has -50 GPa.
    rows = json.loads(invoke("predict", "baseline-magpie:k_vrh", "mp-8", "mp-4", "--json").stdout)
    assert [(row["known"], row["suspect"]) for row in rows] == [(-50.0, True), (67.0, False)]
    done = invoke("predict", "baseline-magpie:k_vrh", "mp-8", "mp-4")
    suspect, plain = done.stdout.splitlines()[1:]
    assert "-50 (suspect)" in suspect
    assert "67" in plain
    assert "suspect" not in plain
    (reason,) = [line for line in done.stderr.splitlines() if "suspect" in line or "plausible" in line]
    assert reason.startswith("test:mp-8: k_vrh = -50 GPa is outside its plausible range")
    explanation = invoke("explain", "baseline-magpie:k_vrh", "mp-8")
    assert "known -50 (suspect)" in explanation.stdout


def test_bad_files_and_forms_are_one_line(invoke: Invoke, magpie: None, tmp_path: Path) -> None:
    partial = tmp_path / "half.vasp"
    partial.write_text("nothing\n")
    failed = invoke("predict", "baseline-magpie", "--structure", partial)
    assert failed.exit_code == 1
    assert failed.stderr.startswith("error: half.vasp: ")
    assert len(failed.stderr.splitlines()) == 1
    assert invoke("predict", "baseline-magpie").exit_code == 2
    assert invoke("predict", "baseline-magpie", "mp-1", "--structure", partial).exit_code == 2
    assert invoke("predict", "baseline-magpie", "mp-1", "--level-of-theory", "GGA").exit_code == 2
    unknown = invoke("predict", "nothing", "mp-1")
    assert (unknown.exit_code, unknown.stderr.startswith("error: no model 'nothing'")) == (1, True)
