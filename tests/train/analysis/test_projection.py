from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from registry.errors import ConfigurationError, QueryError
from train.analysis.projection import project


def test_a_plane_is_found_again() -> None:
    # Directions on a small cap around one axis: what varies is two-dimensional.
    rng = np.random.default_rng(0)
    flat = np.column_stack([np.ones(50), 0.1 * rng.normal(size=50), 0.03 * rng.normal(size=50), np.zeros((50, 5))])
    found = project(flat * rng.uniform(1, 9, size=(50, 1)))
    assert found.points.shape == (50, 2)
    assert abs(np.corrcoef(found.points[:, 0], flat[:, 1])[0, 1]) > 0.999
    assert found.description.startswith("Principal components")
    assert "100% of the variance" in found.description
    assert np.array_equal(project(flat).points, project(flat).points)


def test_unusable_vectors_raise() -> None:
    with pytest.raises(QueryError, match="at least 3"):
        project(np.ones((2, 4)))
    with pytest.raises(QueryError, match="not finite"):
        project(np.full((4, 4), np.nan))
    with pytest.raises(QueryError, match="zero"):
        project(np.zeros((4, 4)))
    with pytest.raises(ConfigurationError, match="choose from pca, umap"):
        project(np.ones((4, 4)), method="tsne")
    assert np.isfinite(project(np.ones((4, 4))).points).all(), "all in one place is a map, too"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="umap-learn is not installed")
@pytest.mark.filterwarnings("ignore")  # of numba's and of parts of umap that are not installed
def test_umap_keeps_groups_apart() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.eye(8)[:3], 20, axis=0)
    vectors = groups + 0.05 * rng.normal(size=groups.shape)
    found = project(vectors, method="umap", seed=3)
    assert (found.points.shape, found.points.dtype) == ((60, 2), np.float64)
    assert np.isfinite(found.points).all()
    apart = np.linalg.norm(found.points[:, None] - found.points[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    assert (apart.argmin(axis=1) // 20 == np.arange(60) // 20).all(), "the nearest is of the same group"
    assert "15 neighbours, seed 3" in found.description
    assert np.array_equal(project(5 * vectors, method="umap", seed=3).points, found.points), "directions, and a seed"


def test_umap_projects_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options that UMAP receives, checked with a substitute because umap-learn is not installed in tests."""
    requested = {}

    class Stand:
        def __init__(self, **options: object) -> None:
            requested.update(options)

        def fit_transform(self, unit: np.ndarray) -> np.ndarray:
            assert np.allclose(np.linalg.norm(unit, axis=1), 1.0)
            return unit[:, :2].astype(np.float32)

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Stand))
    found = project(7.0 * np.eye(5), method="umap", seed=3)
    assert requested == {"n_neighbors": 4, "min_dist": 0.1, "metric": "cosine", "random_state": 3}
    assert (found.points.shape, found.points.dtype) == ((5, 2), np.float64)
    assert found.axes == ("UMAP, first axis", "UMAP, second axis")
    assert "4 neighbours, seed 3" in found.description


@pytest.mark.skipif(importlib.util.find_spec("umap") is not None, reason="umap-learn is installed")
def test_umap_that_is_not_installed() -> None:
    with pytest.raises(ConfigurationError, match="install umap-learn"):
        project(np.eye(5), method="umap")
