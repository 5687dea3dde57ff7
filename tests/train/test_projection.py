from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from registry.errors import ConfigurationError, QueryError
from train.projection import project


def test_a_plane_is_found_again() -> None:
    # Directions on a small cap around one axis: what varies is two-dimensional.
    rng = np.random.default_rng(0)
    flat = np.column_stack([np.ones(50), 0.1 * rng.normal(size=50), 0.03 * rng.normal(size=50), np.zeros((50, 5))])
    found = project(flat * rng.uniform(1, 9, size=(50, 1)))
    assert found.points.shape == (50, 2)
    assert abs(np.corrcoef(found.points[:, 0], flat[:, 1])[0, 1]) > 0.999
    assert found.told.startswith("Principal components")
    assert "100% of the variance" in found.told
    assert np.array_equal(project(flat).points, project(flat).points)


def test_what_makes_no_map() -> None:
    with pytest.raises(QueryError, match="at least 3"):
        project(np.ones((2, 4)))
    with pytest.raises(QueryError, match="not finite"):
        project(np.full((4, 4), np.nan))
    with pytest.raises(QueryError, match="zero"):
        project(np.zeros((4, 4)))
    with pytest.raises(ConfigurationError, match="choose from pca, umap"):
        project(np.ones((4, 4)), method="tsne")
    assert np.isfinite(project(np.ones((4, 4))).points).all(), "all in one place is a map, too"


@pytest.mark.skipif(importlib.util.find_spec("umap") is not None, reason="umap-learn is installed")
def test_umap_that_is_not_installed() -> None:
    with pytest.raises(ConfigurationError, match="pip install umap-learn"):
        project(np.eye(5), method="umap")
