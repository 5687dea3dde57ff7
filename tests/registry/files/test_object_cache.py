"""Tests of the object cache, and of the removal of unused files."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.orm import Session

from registry.crystals import CrystalData, DensityData, write_crystal
from registry.errors import ConfigurationError
from registry.files.cache import cache_status, plan_prune, prune
from registry.files.grids import GridStore, StoredGrid
from registry.files.object_cache import CachedObject, ObjectCache
from registry.provenance import start_run

LATTICE = np.eye(3) * 4.0


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> GridStore:
    """A store on disk, and one on a file system that is not of this machine."""
    if request.param == "file":
        return GridStore((tmp_path / "cache").as_uri())
    return GridStore(f"memory://cache-{tmp_path.name}")


def remember(store: GridStore, key: str = "chgcars/mp-1.json.gz", *, value: float = 1.0) -> CachedObject:
    grids = {kind: store.put(np.full((4, 4, 4), value + n), LATTICE) for n, kind in enumerate(("total", "spin"))}
    found = CachedObject("bucket", key, "etag", "ab" * 32, 123, {"lattice": {"a": 4.1}}, grids)
    ObjectCache(store).add(found)
    return found


def test_added_objects_are_found(store: GridStore) -> None:
    cache = pickle.loads(pickle.dumps(ObjectCache(store)))
    assert cache.names() == frozenset()
    assert cache.find("bucket", "chgcars/mp-1.json.gz") is None
    added = remember(store)
    found = cache.find("bucket", added.key)
    assert found is not None
    assert vars(found) == vars(added)
    assert cache.find("elsewhere", added.key) is None
    assert cache.names() == {cache.name("bucket", added.key)}
    grids = cache.load(found)
    assert grids is not None
    assert {kind: float(values.mean()) for kind, (values, _) in grids.items()} == {"total": 1.0, "spin": 2.0}
    np.testing.assert_array_equal(grids["total"][1], LATTICE)


def test_another_version_replaces_an_entry(store: GridStore) -> None:
    remember(store)
    newer = remember(store, value=5.0)
    found = ObjectCache(store).find("bucket", newer.key)
    assert found is not None
    assert found.grids == newer.grids


@pytest.mark.parametrize("spoil", ["cut", "number", "list", "format"])
def test_a_damaged_entry_is_treated_as_missing(store: GridStore, spoil: str) -> None:
    cache, added = ObjectCache(store), remember(store)
    name = cache.name("bucket", added.key)
    data = store.read(name)
    assert data is not None
    content = json.loads(data)
    spoiled = {
        "cut": data[:50],
        "number": json.dumps(content | {"bytes": 124}).encode(),
        "list": b"[]",
        "format": json.dumps({k: v for k, v in content.items() if k != "checksum"}).encode(),
    }[spoil]
    store.write(name, spoiled)
    assert cache.find("bucket", added.key) is None
    assert cache.names() == {name}
    remember(store)
    assert cache.find("bucket", added.key) is not None


def test_a_damaged_grid_is_removed_and_written_again(store: GridStore) -> None:
    cache, added = ObjectCache(store), remember(store)
    uri = added.grids["spin"].uri
    data = store.read(uri)
    assert data is not None
    store.write(uri, bytes([*data[:-1], data[-1] ^ 1]))  # of the same length, which put() does not detect
    assert cache.load(added) is None
    assert cache.find("bucket", added.key) is None
    again = remember(store)
    assert again.grids == added.grids
    assert cache.load(again) is not None


def test_a_missing_grid_makes_an_entry_useless(store: GridStore) -> None:
    cache, added = ObjectCache(store), remember(store)
    store.remove(added.grids["total"].uri)
    store.remove(added.grids["total"].uri)  # the second removal has no effect
    assert cache.load(added) is None
    assert cache.names() == frozenset()


def test_a_cache_that_is_not_writable_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = GridStore((tmp_path / "file").as_uri())
    with pytest.raises(ConfigurationError, match="ECDREG_CACHE"):
        ObjectCache(store).add(CachedObject("b", "k", None, "0" * 64, 1, {}, {}))


# ------------------------------------------------------------------------------- removal


def in_registry(session: Session, store: GridStore, value: float) -> StoredGrid:
    """Write a crystal with this constant as its total density; return the grid."""
    values = np.full((4, 4, 4), value)
    run = start_run(session, source=f"test-{value}", source_release=None, parameters={})
    data = CrystalData(
        source="test",
        source_id=f"crystal-{value}",
        formula="NaCl",
        structure=None,
        space_group_number=None,
        space_group_symbol=None,
        prototype=None,
        n_sites=None,
        volume=None,
        content_sha256=f"{int(value):064d}",
        densities=(DensityData("total", "GGA", values, LATTICE),),
    )
    write_crystal(session, data, run_id=run.id, grids=store)
    return store.put(values, LATTICE)


def test_status_counts(session: Session, store: GridStore) -> None:
    empty = cache_status(None, store)
    assert (empty.grids, empty.objects, empty.referenced, empty.missing) == (0, 0, 0, 0)
    remember(store)
    mine = in_registry(session, store, 1.0)  # equal to the total grid of the object, and stored once
    other = in_registry(session, store, 9.0)
    found = cache_status(session, store)
    assert (found.grids, found.objects, found.referenced, found.missing) == (3, 1, 2, 0)
    assert found.grid_bytes == sum(file.bytes for file in store.files() if file.name.endswith(".h5"))
    assert 0 < found.referenced_bytes < found.grid_bytes
    store.remove(other.uri)
    assert cache_status(session, store).missing == 1
    assert store.holds(mine)


def test_only_old_and_unused_grids_are_removed(session: Session, store: GridStore) -> None:
    kept, gone = remember(store), remember(store, "chgcars/mp-2.json.gz", value=20.0)
    loose = store.put(np.full((4, 4, 4), 50.0), LATTICE)
    in_registry(session, store, 1.0)  # one of the first object's two grids
    now = datetime.now(UTC)
    month = timedelta(days=30)
    assert plan_prune(session, store, older_than=month).files == ()
    plan = plan_prune(session, store, older_than=month, now=now + timedelta(days=31))
    assert {file.name for file in plan.grids} == {loose.uri, *(grid.uri for grid in gone.grids.values())}
    assert [file.name for file in plan.objects] == [ObjectCache.name("bucket", gone.key)]
    assert plan.bytes == sum(file.bytes for file in plan.files)
    prune(store, plan)
    cache = ObjectCache(store)
    assert cache.find("bucket", gone.key) is None
    assert cache.load(kept) is not None
    assert plan_prune(session, store, older_than=timedelta(0)).files == ()


def test_foreign_files_stay_and_partial_files_are_removed(session: Session, tmp_path: Path) -> None:
    store = GridStore((tmp_path / "cache").as_uri())
    for name in ("README", "ab/notes.txt", "ab/x.h5.123.part"):
        store.write(name, b"content")
    plan = plan_prune(session, store, older_than=timedelta(0))
    assert [file.name for file in plan.files] == ["ab/x.h5.123.part"]


def test_a_grid_that_is_used_again_is_not_old(tmp_path: Path) -> None:
    import os

    store = GridStore((tmp_path / "cache").as_uri())
    added = remember(store)
    for file in (tmp_path / "cache").rglob("*.*"):
        os.utime(file, (1e9, 1e9))
    assert {file.changed for file in store.files()} == {datetime.fromtimestamp(1e9, UTC)}
    ObjectCache(store).load(added)
    assert all(file.changed is not None and file.changed.year > 2001 for file in store.files())
