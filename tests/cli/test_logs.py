"""Log lines of the five packages on stderr, and ``--quiet`` and ``--verbose``."""

from __future__ import annotations

import logging

import pytest

from tests.conftest import Invoke


def test_quiet_silences_notes_but_not_errors(invoke: Invoke) -> None:
    assert "no splits yet" in invoke("split", "list").stderr
    assert invoke("--quiet", "split", "list").stderr == ""
    assert invoke("split", "list", "--quiet").stderr == ""
    assert "no splits yet" in invoke("split", "list").stderr, "one command's option holds for that command alone"
    assert invoke("--quiet", "split", "show", "nowhere").stderr.startswith("error:")


@pytest.mark.parametrize(
    ("options", "shown"), [((), []), (("-v",), ["info"]), (("-vv",), ["info", "debug"]), (("-v", "-q"), ["info"])]
)
def test_verbose_prints_log_lines(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], shown: list[str]
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
        assert [line.partition(":")[0] for line in lines] == [*shown, "warning"]
    assert logging.getLogger("registry").level == logging.NOTSET
