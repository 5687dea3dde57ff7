"""Slim densities: small grids of the kinds that recipes need."""

from __future__ import annotations

import numpy as np
import pytest

from ingest.densities.slim import slim_densities
from tests.ingest.conftest import gaussians
from tests.ingest.sources.mp_standin import rock_salt


@pytest.mark.parametrize("kind", ["total", "spin"])
def test_slim_grids_conserve_the_number_of_electrons(kind: str) -> None:
    from ingest.slices.recipes import RECIPES

    structure = rock_salt("Na", "Cl", 5.6)
    density = gaussians(structure, (72, 48, 64), {"Na": (7, 0.4), "Cl": (7, 0.4)}, kind=kind)
    recipe = RECIPES["paper" if kind == "spin" else "paper-total"]
    assert slim_densities([density], [RECIPES["paper-deformation"]]) == []
    [small] = slim_densities([density], [recipe])
    assert small.values.shape == (60, 48, 60)
    assert small.values.dtype == np.float32
    assert small.origin == {"slim": True, "native_grid": [72, 48, 64]}
    assert small.n_electrons == pytest.approx(density.n_electrons, rel=1e-7)
    # The smaller grid represents all waves of a Gaussian of 0.4 Å.
    exact = gaussians(structure, (60, 48, 60), {"Na": (7, 0.4), "Cl": (7, 0.4)})
    np.testing.assert_allclose(small.values, exact.values, atol=1e-5 * exact.values.max())
