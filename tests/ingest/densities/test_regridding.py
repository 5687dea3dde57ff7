"""Fourier interpolation of densities to another grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyrho.pgrid import PGrid

from ingest.densities.regridding import regrid
from registry.crystals import DensityData
from registry.errors import InputError
from tests.ingest.conftest import MakeDensity, rock_salt

CHARGES = {"Na": (1.0, 0.5), "Cl": (7.0, 0.45)}
SHARP = {"Na": (1.0, 0.12), "Cl": (7.0, 0.15)}


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(gaussian_density: MakeDensity, wrong: float) -> None:
    density = gaussian_density(rock_salt(), (24, 24, 24), CHARGES)
    values = density.values.copy()
    values[0, 1, 2] = wrong
    with pytest.raises(InputError, match="not finite"):
        regrid(replace(density, values=values))


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(*[st.integers(8, 40)] * 3),
    target=st.tuples(*[st.integers(8, 64)] * 3),
    seed=st.integers(0, 2**16),
)
def test_regridding_conserves_the_number_of_electrons(
    shape: tuple[int, int, int], target: tuple[int, int, int], seed: int
) -> None:
    values = np.random.default_rng(seed).normal(1.0, 1.0, shape)  # white noise: all waves have equal weight
    density = DensityData("total", "GGA", values, np.eye(3) * 4.0)
    found = regrid(density, target)
    assert found.values.shape == target
    assert found.n_electrons == pytest.approx(density.n_electrons, rel=1e-12)


@pytest.mark.parametrize(("points", "tolerance"), [(24, 1e-10), (32, 1e-12)])
def test_regridded_gaussians_equal_analytic_ones(gaussian_density: MakeDensity, points: int, tolerance: float) -> None:
    found = regrid(gaussian_density(rock_salt(), (points,) * 3, CHARGES))
    exact = gaussian_density(rock_salt(), (60, 60, 60), CHARGES)
    assert found.n_electrons == pytest.approx(8.0, rel=1e-12)
    np.testing.assert_allclose(found.values, exact.values, atol=tolerance * exact.values.max())


def test_density_with_cusps_keeps_its_electrons_and_its_values(gaussian_density: MakeDensity) -> None:
    # Like a PAW density: a narrow peak, and negative where pseudo-density and compensation charge meet.
    broad, narrow = gaussian_density(rock_salt(), (30,) * 3, CHARGES), gaussian_density(rock_salt(), (30,) * 3, SHARP)
    density = replace(broad, values=2 * broad.values - narrow.values)
    assert density.values.min() < 0
    found = regrid(density)
    assert found.n_electrons == pytest.approx(8.0, rel=1e-12)
    np.testing.assert_allclose(found.values[::2, ::2, ::2], density.values, atol=1e-12 * abs(density.values).max())
    # The linear step of pyrho's get_transformed changes the number of electrons.
    linear = PGrid(gaussian_density(rock_salt(), (32,) * 3, SHARP).values, density.lattice)
    changed = linear.get_transformed(np.eye(3), [60] * 3, up_sample=1).grid_data.mean() * density.volume
    assert abs(changed / 8.0 - 1) > 1e-4


def test_regridding_equals_pyrho_where_its_linear_step_is_exact(gaussian_density: MakeDensity) -> None:
    density = gaussian_density(rock_salt(), (12,) * 3, SHARP)
    # 5 x 12 contains every point of the new grid, so that pyrho's linear step is exact.
    expected = PGrid(density.values, density.lattice).get_transformed(np.eye(3), [60] * 3, up_sample=5).grid_data
    np.testing.assert_allclose(regrid(density).values, expected, atol=1e-10)


def test_density_on_the_same_grid_is_unchanged(gaussian_density: MakeDensity) -> None:
    density = gaussian_density(rock_salt(), (60,) * 3, SHARP)
    assert np.array_equal(regrid(density).values, density.values)
