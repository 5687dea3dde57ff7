"""Tables, JSON, CSV and progress on the terminal."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from cli import output


class TestOutput:
    def test_json_is_finite_and_plain(self, capsys: pytest.CaptureFixture[str]) -> None:
        @dataclass
        class Point:
            x: float
            at: Path

        output.json(
            {
                "nan": float("nan"),
                "inf": np.float32("inf"),
                "numpy": np.float32(0.5),
                "array": np.arange(3),
                "point": Point(1.5, Path("/a")),
                "when": datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
                "set": {"b", "a"},
                "å": (True, None),
            }
        )
        assert json.loads(capsys.readouterr().out) == {
            "nan": None,
            "inf": None,
            "numpy": 0.5,
            "array": [0, 1, 2],
            "point": {"x": 1.5, "at": "/a"},
            "when": "2026-01-02T03:04:00+00:00",
            "set": ["a", "b"],
            "å": [True, None],
        }

    def test_table_is_aligned(self, capsys: pytest.CaptureFixture[str]) -> None:
        rows = [
            {"formula": "NaCl", "k_vrh": 24.91234, "distance": 0.00012345, "tags": ["a", "b"]},
            {"formula": "C", "k_vrh": None, "distance": 12345.678, "tags": []},
        ]
        output.table(rows, title="Near", formats={"distance": ".3f"})
        assert capsys.readouterr().out.splitlines() == [
            "Near",
            "formula  k_vrh   distance  tags",
            "NaCl     24.91      0.000  a, b",
            "C               12345.678",
        ]
        output.table(rows, {"k_vrh": "K [GPa]"})
        assert capsys.readouterr().out.splitlines() == ["K [GPa]", "  24.91", ""]

    def test_table_on_a_terminal_shows_the_same_cells(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = _Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("COLUMNS", "80")
        output.table([{"a [eV]": "[bold]x", "b": 1}])
        drawn = terminal.getvalue()
        assert "a [eV]" in drawn
        assert "[bold]x" in drawn

    @pytest.mark.parametrize("width", [60, 80, 200])
    def test_table_on_a_narrow_terminal_splits_no_cell(self, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = [
            {
                "model": "stacked:formation_energy_per_atom@1",
                "id": f"sample:mp-{number}",
                "90 % interval": "-1.576 to -0.7868",
                "formation energy [eV/atom]": -0.3402,
                "cv R2": "0.978 ± 0.011",
                "subset": "holdout",
                "reason": "no text of the text level keywords; bulk modulus outside its range from 0 to 1000 GPa",
            }
            for number in (10227, 867108)
        ]
        terminal = _Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("COLUMNS", str(width))
        output.table(rows, title="formation_energy_per_atom of crystals, split 'paper-formation_energy_per_atom-420'")
        title, *lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines()
        assert "'paper-formation_energy_per_atom-420'" in title
        assert max(map(len, lines)) <= width
        text = "\n".join(lines)
        whole = list(rows[0]) + [str(cell) for row in rows for cell in list(row.values())[:-1]]
        assert [cell for cell in whole if cell not in text] == []
        assert set(str(rows[0]["reason"]).split()) <= set(text.split())

    @pytest.mark.parametrize(
        ("value", "spec", "text"),
        [(131.6, ".2g", "130"), (12345.6, ".4g", "12350"), (0.0741, ".2g", "0.074"), (3e-7, ".2g", "3e-07")],
    )
    def test_numbers_of_usual_magnitude_have_no_exponent(self, value: float, spec: str, text: str) -> None:
        assert output.number(value, spec) == text

    def test_no_rows(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.table([], ["a", "b"])
        output.csv([], ["a", "b"])
        assert capsys.readouterr().out == "a  b\na,b\n"

    def test_csv(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.csv([{"a": 0.1, "b": "x,y"}, {"a": None, "b": 'say "hi"'}])
        assert capsys.readouterr().out == 'a,b\n0.1,"x,y"\n,"say ""hi"""\n'

    def test_rows_by_the_flag(self, capsys: pytest.CaptureFixture[str]) -> None:
        output.rows([{"a": 1}], json=True)
        assert json.loads(capsys.readouterr().out) == [{"a": 1}]
        output.rows([{"a": 1}], json=False)
        assert capsys.readouterr().out == "a\n1\n"


class TestProgress:
    def test_lines_each_tenth(self, capsys: pytest.CaptureFixture[str]) -> None:
        with output.progress() as progress:
            progress.begin("reading", 200)
            for index in range(200):
                progress.advance(note=f"mp-{index}")
            progress.end()
            progress.message("done")
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "reading: 0 of 200"
        assert lines[1] == "reading: 20 of 200 (mp-19)"
        assert lines[-2:] == ["reading: 200 of 200 (mp-199)", "done"]
        assert len(lines) == 12

    def test_lines_without_a_total_become_rarer(self, capsys: pytest.CaptureFixture[str]) -> None:
        with output.progress() as progress:
            progress.begin("reading")
            for _ in range(100):
                progress.advance()
            progress.end()
        printed = [line.rpartition(" ")[2] for line in capsys.readouterr().err.splitlines()]
        assert printed == ["...", "10", "20", "40", "80", "100"]

    def test_bars_on_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = _Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        with output.progress() as progress:
            progress.begin("reading [a]", 2)
            progress.advance(note="mp-1")
            progress.message("half [bold]way")
            progress.advance()
            progress.end()
        assert "reading [a]" in terminal.getvalue()
        assert "half [bold]way" in terminal.getvalue()

    def test_quiet_is_silent(self, quietly: None, capsys: pytest.CaptureFixture[str]) -> None:
        with output.progress() as progress:
            progress.begin("reading", 1)
            progress.message("x")
            progress.advance()
            progress.end()
        output.note("hint")
        assert capsys.readouterr().err == ""

    @pytest.fixture
    def quietly(self) -> Iterator[None]:
        token = output.quiet.set(True)
        yield
        output.quiet.reset(token)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True
