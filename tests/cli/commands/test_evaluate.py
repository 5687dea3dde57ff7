"""``ecdreg evaluate``: scores of similarity searches."""

from __future__ import annotations

import json

from tests.conftest import Invoke


def test_evaluate_search_prints_a_table(invoke: Invoke, vectors: dict[str, list[float]]) -> None:
    done = invoke("evaluate", "search", "-k", 3)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "queries: all crystals (24); the nearest 3 of 24"
    assert [line.split("  ")[0] for line in lines[2:6]] == [
        "chance", "composition, Magpie", "composition, ElMD", "circle:metric",
    ]  # fmt: skip
    scores = json.loads(invoke("evaluate", "search", "-k", 3, "--json").stdout)
    assert scores[-1]["measure"] == "circle:metric"
    assert set(scores[-1]["differences"]) == {"efermi", "k_vrh"}
    assert invoke("evaluate", "search", "-k", 0).exit_code == 2
    assert "circle:metric" in invoke("evaluate", "search", "--encoder", "circel:metric").stderr
