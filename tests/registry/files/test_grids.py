"""Tests of the grid store."""

from __future__ import annotations

import pickle
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from registry.errors import ArtifactError, ConfigurationError, InputError
from registry.files.grids import GridStore

LATTICE = np.array([[0.0, 2.1, 2.1], [2.1, 0.0, 2.1], [2.1, 2.1, 0.0]])


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=5),
        elements=st.floats(-10, 1000, width=32),
    )
)
def test_grids_are_read_as_they_were_written(values: np.ndarray) -> None:
    store = GridStore("memory://grids-round")
    stored = store.put(values, LATTICE)
    back, lattice = store.get(stored.uri, stored.sha256)
    assert back.dtype == values.dtype
    np.testing.assert_array_equal(back, values)
    np.testing.assert_array_equal(lattice, LATTICE)


def test_equal_grids_are_one_file(grids: GridStore) -> None:
    values = np.random.default_rng(0).random((6, 6, 6))
    first = grids.put(values, LATTICE)
    assert grids.put(values.copy(order="F"), LATTICE) == first
    assert grids.put(values.astype(np.float32), LATTICE) != first
    assert grids.put(values, LATTICE * 1.01) != first
    assert len(list(_root(grids).rglob("*.*"))) == 3, "no parts are left behind"


def test_damage_is_detected(grids: GridStore) -> None:
    stored = grids.put(np.ones((3, 3, 3)), LATTICE)
    path = _root(grids) / stored.uri
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="does not match its checksum"):
        grids.get(stored.uri, stored.sha256)
    path.unlink()
    with pytest.raises(ArtifactError, match="is not in file://"):
        grids.get(stored.uri, stored.sha256)


def test_truncated_file_is_written_again(grids: GridStore) -> None:
    stored = grids.put(np.ones((3, 3, 3)), LATTICE)
    path = _root(grids) / stored.uri
    path.write_bytes(path.read_bytes()[:100])
    assert grids.put(np.ones((3, 3, 3)), LATTICE) == stored
    grids.get(stored.uri, stored.sha256)


@pytest.mark.parametrize(
    ("values", "lattice"),
    [
        (np.ones((3, 3)), LATTICE),
        (np.ones((3, 3, 3), dtype=int), LATTICE),
        (np.ones((3, 3, 3)), np.eye(2)),
    ],
)
def test_other_shapes_and_types_are_refused(grids: GridStore, values: np.ndarray, lattice: np.ndarray) -> None:
    with pytest.raises(InputError, match="cannot be stored"):
        grids.put(values, lattice)


def test_an_unusable_location_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match="ECDREG_CACHE"):
        GridStore((tmp_path / "file" / "grids").as_uri()).put(np.ones((1, 1, 1)), LATTICE)
    with pytest.raises(ConfigurationError, match="ECDREG_CACHE"):
        GridStore("nosuch://grids").put(np.ones((1, 1, 1)), LATTICE)


def test_store_can_be_pickled(grids: GridStore) -> None:
    stored = grids.put(np.ones((2, 2, 2)), LATTICE)
    pickle.loads(pickle.dumps(grids)).get(stored.uri, stored.sha256)


def _root(grids: GridStore) -> Path:
    return Path(unquote(urlparse(grids.url).path))
