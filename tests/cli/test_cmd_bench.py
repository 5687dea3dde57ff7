"""``ecdreg bench`` as one types it."""

from __future__ import annotations

import json

import pytest

from cli.main import main


def test_free_atoms_on_two_crystals_of_the_sample(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--quiet", "bench", "free-atoms", "--source", "sample", "--limit", "2"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["left_out"] == []
    assert found["rows"][-1]["prototype"] == "all"
    assert found["rows"][-1]["crystals"] == 2
    assert found["rows"][-1]["interstitial_correlation"] > 0.9
    assert main([*command, "--crystals"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["source_id", "formula", "prototype"]
    assert len(lines) == 3


def test_nothing_to_compare_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "free-atoms", "--source", "nonesuch"]) == 2
    assert "nonesuch" in capsys.readouterr().err
