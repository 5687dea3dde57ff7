"""``ecdreg explain``, ``ecdreg models coverage`` and ``ecdreg reference`` as a person calls them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Invoke


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("explain", "stacked:k_vrh", "mp-1"), "stacked"),
        (("models", "coverage", "stacked"), "stacked"),
        (("models", "coverage", "stacked", "--interval", "1.5"), "between 0 and 1"),
        (("predict", "stacked", "mp-1", "--interval", "0"), "between 0 and 1"),
        (("reference", "score", "cgcn"), "did you mean 'cgcnn'"),
    ],
)
def test_what_cannot_be_done_is_one_line(invoke: Invoke, arguments: tuple[str, ...], message: str) -> None:
    done = invoke(*arguments)
    assert done.exit_code != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_page_that_cannot_be_written_is_refused_first(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("report", "stacked", "-o", tmp_path / "no" / "page.html")
    assert done.exit_code != 0
    assert "no such folder" in done.stderr
