"""``ecdreg cache``: status and removal of old grids."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from registry.files.grids import GridStore, StoredGrid
from registry.files.object_cache import CachedObject, ObjectCache
from tests.conftest import Invoke
from tests.ingest.sources.mp_standin import KEY, Standin, material


@pytest.fixture
def stray(home: Path, crystals: dict[str, int]) -> StoredGrid:
    """A grid of a download that no crystal refers to, last used long ago; beside the registry's own 24 pairs."""
    store = GridStore((home / "grids").as_uri())
    grid = store.put(np.full((4, 4, 4), 7.0), np.eye(3))
    ObjectCache(store).add(CachedObject("bucket", "key", None, "0" * 64, 1, {}, {"total": grid}))
    for file in (home / "grids").rglob("*.*"):
        os.utime(file, (1e9, 1e9))
    return grid


def test_status(invoke: Invoke, stray: StoredGrid, home: Path) -> None:
    done = invoke("cache", "status", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["grids"], found["referenced"], found["objects"], found["missing"]) == (49, 48, 1, 0)
    assert found["url"] == (home / "grids").as_uri()
    assert 0 < found["referenced_bytes"] < found["grid_bytes"]
    printed = invoke("cache", "status")
    assert f"Density cache {found['url']}" in printed.stdout
    assert "of them this registry's" in printed.stdout


def test_status_of_another_cache(invoke: Invoke, crystals: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECDREG_CACHE", "memory://nothing-here")
    done = invoke("cache", "status")
    assert done.exit_code == 0
    assert "48 grids of this registry are not in the cache; is ECDREG_CACHE the right one?" in done.stderr


def test_prune_requires_confirmation_and_keeps_needed_grids(
    invoke: Invoke, stray: StoredGrid, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "grids" / stray.uri
    dry = invoke("cache", "prune", "--dry-run")
    assert dry.exit_code == 0, dry.stderr
    assert dry.stdout.startswith("would remove 1 grids and 1 objects")
    assert path.exists()

    import io
    import sys

    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    refused = invoke("cache", "prune")
    assert refused.exit_code == 1
    assert "Other registries may need them" in refused.stderr
    assert path.exists()

    done = invoke("cache", "prune", "--yes", "--json")
    assert done.exit_code == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["removed"], answer["grids"], len(answer["objects"])) == (True, [stray.uri], 1)
    assert not path.exists()
    assert json.loads(invoke("cache", "status", "--json").stdout)["missing"] == 0
    assert invoke("cache", "prune", "--yes").stdout.startswith("nothing to remove")


def test_young_grids_stay(invoke: Invoke, stray: StoredGrid, home: Path) -> None:
    os.utime(home / "grids" / stray.uri)
    assert json.loads(invoke("cache", "prune", "--dry-run", "--json").stdout)["grids"] == []
    everything = invoke("cache", "prune", "--dry-run", "--json", "--older-than", 0)
    assert json.loads(everything.stdout)["grids"] == [stray.uri]
    assert invoke("cache", "prune", "--older-than", -1).exit_code == 2


def test_without_a_registry_nothing_is_removed(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ECDREG_DATABASE_URL")
    empty = invoke("cache", "status", "--json")
    assert empty.exit_code == 0, empty.stderr
    assert json.loads(empty.stdout)["grids"] == 0
    done = invoke("cache", "prune", "--yes")
    assert done.exit_code == 2
    assert "there is no registry in" in done.stderr
    assert not (tmp_path / "home").exists()


def test_two_registries_share_a_cache(
    invoke: Invoke,
    new_database: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ("ingest", "--fcc", "--recipe", "paper-total", "--workers", 0)
    with Standin([material(1, points=12), material(2, points=12)]).running() as standin:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("MP_API_KEY", KEY)
        monkeypatch.setenv("MP_API_ENDPOINT", standin.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", standin.url)
        monkeypatch.setenv("ECDREG_CACHE", (tmp_path / "shared").as_uri())
        first = invoke(*command)
        assert first.exit_code == 0, first.stderr
        assert "2 charge densities to download" in first.stderr
        assert sorted(standin.requested_objects()) == ["mp-2000001", "mp-2000002"]

        standin.log.clear()
        monkeypatch.setenv("ECDREG_HOME", str(tmp_path / "second"))
        monkeypatch.setenv("ECDREG_DATABASE_URL", new_database())
        assert json.loads(invoke("ingest", "--fcc", "--dry-run", "--json").stdout)["cached"] == 2
        assert "0.000 GB to download" in invoke("ingest", "--fcc", "--dry-run").stdout
        second = invoke(*command)
        assert second.exit_code == 0, second.stderr
        assert "0 charge densities to download" in second.stderr
        assert standin.requested_objects() == []
        status = json.loads(invoke("cache", "status", "--json").stdout)
        assert (status["objects"], status["grids"], status["referenced"]) == (2, 4, 4)
