"""Densities on a grid of the primitive cell."""

from __future__ import annotations

import numpy as np
import pytest
from pymatgen.core.lattice import Lattice

from ingest.slices.primitive_grid import regrid_primitive
from registry.errors import InputError
from tests.ingest.conftest import MakeDensity, rock_salt

CHARGES = {"Na": (1.0, 0.5), "Cl": (7.0, 0.45)}


def test_conventional_cell_is_mapped_to_the_primitive_one(gaussian_density: MakeDensity) -> None:
    conventional = rock_salt(primitive=False)
    density = gaussian_density(conventional, (40,) * 3, CHARGES)
    found = regrid_primitive(density, conventional, points=20)
    i, j, k = np.indices((20, 20, 20))
    expected = density.values[(j + k) % 40, (i + k) % 40, (i + j) % 40]
    np.testing.assert_array_equal(found.values, expected)
    assert found.n_electrons == pytest.approx(8.0, rel=1e-9)
    np.testing.assert_allclose(found.lattice, rock_salt().lattice.matrix, atol=1e-6)


@pytest.mark.parametrize(
    "multiple",
    [
        [[2, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[1, 1, 0], [0, 1, 0], [0, 0, 1]],  # primitive, with other angles
    ],
)
def test_supercells_are_mapped_to_the_primitive_cell(gaussian_density: MakeDensity, multiple: list[list[int]]) -> None:
    stored = rock_salt()
    stored.make_supercell(multiple)
    shape = tuple(2 * round(length / 0.2) for length in stored.lattice.abc)
    found = regrid_primitive(gaussian_density(stored, shape, CHARGES), stored, points=24)
    expected = gaussian_density(rock_salt(), (24,) * 3, CHARGES)
    assert found.n_electrons == pytest.approx(8.0, rel=1e-9)
    # The order of equivalent axes is not fixed; the values are the same.
    np.testing.assert_allclose(np.sort(found.values.ravel()), np.sort(expected.values.ravel()), atol=1e-4)
    np.testing.assert_allclose(Lattice(found.lattice).angles, 60.0, atol=1e-6)


def test_cell_that_is_not_a_simple_multiple_is_refused(gaussian_density: MakeDensity) -> None:
    stored = rock_salt()
    stored.make_supercell([[5, 0, 0], [0, 1, 0], [0, 0, 1]])
    with pytest.raises(InputError, match=r"cell of NaCl \(10 atoms\) is not a simple multiple"):
        regrid_primitive(gaussian_density(stored, (60, 16, 16), CHARGES), stored)
