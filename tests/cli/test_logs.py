"""Log lines of the five packages on stderr, and ``--quiet`` and ``--verbose``."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cli.logs import LOGGERS
from tests.conftest import Invoke


def test_quiet_silences_notes_but_not_errors(invoke: Invoke) -> None:
    assert "no splits yet" in invoke("split", "list").stderr
    assert invoke("--quiet", "split", "list").stderr == ""
    assert invoke("split", "list", "--quiet").stderr == ""
    assert "no splits yet" in invoke("split", "list").stderr, "one command's option holds for that command alone"
    assert invoke("--quiet", "split", "show", "nowhere").stderr.startswith("error:")


@pytest.mark.parametrize(
    ("options", "printed"), [((), []), (("-v",), ["info"]), (("-vv",), ["info", "debug"]), (("-v", "-q"), ["info"])]
)
def test_verbose_prints_log_lines(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], printed: list[str]
) -> None:
    def list_splits(session: object) -> list[object]:
        log = logging.getLogger("registry")
        log.info("one")
        log.debug("two")
        log.warning("three")
        return []

    monkeypatch.setattr("registry.splits.reading.list_splits", list_splits)
    for arguments in (("split", "list", *options), (*options, "split", "list")):
        lines = [line for line in invoke(*arguments).stderr.splitlines() if ": registry: " in line]
        assert [line.partition(":")[0] for line in lines] == [*printed, "warning"]
    assert logging.getLogger("registry").level == logging.NOTSET


def test_every_package_writes_a_line_about_its_work(invoke: Invoke, tmp_path: Path) -> None:
    """Ingestion, a split and a baseline of 20 formulas."""
    folder = tmp_path / "salts"
    folder.mkdir()
    pairs = [
        metal + anion for anion in ("O", "S") for metal in ("Li", "Na", "K", "Mg", "Ca", "Ti", "V", "Zr", "Sc", "Mn")
    ]
    lines = [f"s-{i},{formula},{40.0 + 9.0 * (i % 7)}" for i, formula in enumerate(pairs)]
    (folder / "properties.csv").write_text("\n".join(["id,formula,k_vrh", *lines]) + "\n", encoding="utf-8")
    lines = []
    for command in (
        ("ingest", "--source", f"{folder}/", "--workers", 0),
        ("split", "create", "default", "--target", "k_vrh", "--recipe", "none", "--text-level", "none"),
        ("train", "baseline", "--target", "k_vrh"),
    ):
        done = invoke(*command, "-v")
        assert done.exit_code == 0, done.stderr
        lines += done.stderr.splitlines()
    for name in LOGGERS:
        assert any(line.startswith(f"info: {name}: ") for line in lines), name
