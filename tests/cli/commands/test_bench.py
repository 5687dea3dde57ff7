"""Tests of the command group ``ecdreg bench``."""

from __future__ import annotations

import json
import sys

import psycopg
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


def test_an_unknown_source_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "free-atoms", "--source", "nonesuch"]) == 2
    assert "nonesuch" in capsys.readouterr().err


def test_search_at_a_small_size(
    engine: object, cluster_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("faiss")
    pytest.importorskip("hnswlib")
    monkeypatch.setenv("ECDREG_DATABASE_URL", cluster_url)
    sizes = ["--rows", "4000", "--dim", "16", "--queries", "100", "--full", "--full-rows", "3000"]
    main(["--quiet", "bench", "search", *sizes, "--json"])  # exit code 1 on a busy machine
    found = {row["what"]: row for row in json.loads(capsys.readouterr().out)}
    assert found["4,000 x 16, k 10: recall, mean"]["met"]
    assert found["filter that keeps 1 %: rows missing"]["value"] == 0
    assert found["index of 3,000 x 256 halfvec: build"]["value"] > 0
    assert found["SQL / hnswlib, p50"]["goal"] == ""
    with psycopg.connect(cluster_url) as connection:
        left = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'ecdreg_bench%'").fetchall()
    assert left == []


def test_search_without_the_reference_libraries(
    engine: object, cluster_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ECDREG_DATABASE_URL", cluster_url)
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    assert main(["bench", "search"]) == 2
    assert "`pip install 'ecdreg[bench]'`" in capsys.readouterr().err
