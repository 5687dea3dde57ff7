"""Command ``ecdreg index``."""

from __future__ import annotations

import json

import pytest

from registry.search import indexes as vector_indexes
from tests.conftest import Invoke


def test_build_status_and_drop(
    invoke: Invoke, vectors: dict[str, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = invoke("index", "status")
    assert answer.exit_code == 0
    assert answer.stdout.splitlines()[1].split() == ["circle:metric", "3", "24", "not", "needed"]
    answer = invoke("index", "build")
    assert answer.exit_code == 0
    assert "no encoder has enough vectors" in answer.stderr

    monkeypatch.setattr(vector_indexes, "INDEX_ROWS", 20)
    answer = invoke("index", "status")
    assert "offered" in answer.stdout
    assert answer.stderr == "`ecdreg index build` makes those of circle:metric\n"
    answer = invoke("index", "build", "--workers", 0, "--json")
    assert answer.exit_code == 0
    [built] = json.loads(answer.stdout)
    assert (built["encoder"], built["metric"], built["state"]) == ("circle:metric", "cosine", "ready")
    assert "building the index of circle:metric for cosine ..." in answer.stderr
    assert invoke("index", "build", "default", "--metric", "l2", "--online").exit_code == 0
    assert [r["metric"] for r in json.loads(invoke("index", "status", "--json").stdout)] == ["cosine", "l2"]

    found = json.loads(invoke("similar", "mp-3", "-k", 2, "--json").stdout)
    assert {n["source_id"] for n in found} == {"mp-2", "mp-4"}

    answer = invoke("index", "drop", "circle:metric", "--metric", "l2")
    assert answer.stdout == "dropped: circle:metric, l2\n"
    for arguments in ((), ("--metric", "cosine"), ("default", "--all")):
        refused = invoke("index", "drop", *arguments)
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "the name of an encoder, or all encoders" in refused.stderr
    assert [r["state"] for r in json.loads(invoke("index", "status", "--json").stdout)] == ["ready"], "nothing is lost"
    assert [r["metric"] for r in json.loads(invoke("index", "drop", "--all", "--json").stdout)] == ["cosine"]
    assert "no such index" in invoke("index", "drop", "--all").stderr


def test_missing_encoders_and_metrics_are_reported(invoke: Invoke, vectors: dict[str, list[float]]) -> None:
    for command in ("status", "build", "drop"):
        answer = invoke("index", command, "nonesuch")
        assert answer.exit_code == 1
        assert "no encoder 'nonesuch'; there are: circle:metric" in answer.stderr
        answer = invoke("index", command, "circle:metric", "--metric", "manhattan")
        assert answer.exit_code == 2
        assert "no metric 'manhattan'" in answer.stderr
