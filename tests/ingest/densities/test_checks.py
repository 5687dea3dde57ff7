from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure
from pyrho.pgrid import PGrid

from ingest.densities.checks import (
    check_count,
    check_densities,
    check_density,
    regrid,
    regrid_primitive,
    same_crystal,
    valence_range,
)
from registry.crystals import DensityData
from registry.errors import InputError

Make = Callable[..., DensityData]
CHARGES = {"Na": (1.0, 0.5), "Cl": (7.0, 0.45)}
SHARP = {"Na": (1.0, 0.12), "Cl": (7.0, 0.15)}


def rock_salt(*, a: float = 5.6, primitive: bool = True) -> Structure:
    half = np.ones((3, 3)) - np.eye(3)
    if primitive:
        return Structure(a / 2 * half, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    sodium = np.vstack([np.zeros(3), half / 2])
    return Structure(Lattice.cubic(a), ["Na"] * 4 + ["Cl"] * 4, np.vstack([sodium, sodium + 0.5]))


@pytest.fixture
def total(gaussian_density: Make) -> DensityData:
    return gaussian_density(rock_salt(), (24, 24, 24), CHARGES)


def test_a_possible_density_passes(total: DensityData) -> None:
    assert total.n_electrons == pytest.approx(8.0, abs=1e-9)
    check_density(total, rock_salt())
    check_density(total, rock_salt(), electrons=8.0)
    spin = replace(total, kind="spin", values=total.values / 4)
    deformation = replace(total, kind="deformation", values=total.values - total.values.mean())
    check_densities([total, spin, deformation], rock_salt())


def test_the_cell_may_be_turned_in_space(total: DensityData) -> None:
    turned = Structure(Lattice.from_parameters(*rock_salt().lattice.parameters), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])
    assert not np.allclose(turned.lattice.matrix, total.lattice)
    check_density(total, turned)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_counted(total: DensityData, wrong: float) -> None:
    values = total.values.copy()
    values[0, 1, 2] = values[3, 4, 5] = wrong
    with pytest.raises(InputError, match=r"2 of 13824 values that are not finite"):
        check_density(replace(total, values=values), rock_salt())
    with pytest.raises(InputError, match="not finite"):
        regrid(replace(total, values=values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.ones((7, 24, 24))}, "at least 8 points"),
        ({"values": np.ones((24, 24))}, "three axes"),
        ({"values": np.ones((24, 24, 24), dtype=int)}, "real values"),
        ({"values": np.ones((24, 24, 24), dtype=complex)}, "real values"),
        ({"lattice": np.zeros((3, 3))}, "has no cell"),
        ({"kind": "potential"}, "not known"),
    ],
)
def test_what_is_no_grid_is_refused(total: DensityData, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_density(replace(total, **change), rock_salt())


def test_a_grid_too_coarse_for_its_cell_is_refused(gaussian_density: Make) -> None:
    with pytest.raises(InputError, match=r"0\.62 Å apart"):
        check_density(gaussian_density(rock_salt(a=5.6, primitive=False), (9, 16, 16), CHARGES), rock_salt())


def test_another_cell_is_refused_with_both(total: DensityData) -> None:
    with pytest.raises(InputError, match=r"\(3\.9598, 3\.9598, 3\.9598\).*\(4\.0093"):
        check_density(total, rock_salt(a=5.67))
    with pytest.raises(InputError, match="was calculated for"):
        check_density(total, rock_salt(primitive=False))


@pytest.mark.parametrize("factor", [1e-3, 0.12, 3.6, 79.4])
def test_an_impossible_number_of_electrons_is_refused(total: DensityData, factor: float) -> None:
    # Between 1 + 7 valence and 11 + 17 electrons in all.
    with pytest.raises(InputError, match=r"between 8 valence and 28 electrons"):
        check_density(replace(total, values=total.values * factor), rock_salt())


def test_a_number_that_is_not_whole_is_refused(total: DensityData) -> None:
    with pytest.raises(InputError, match=r"holds 8\.800 electrons, which is no whole number"):
        check_density(replace(total, values=total.values * 1.1), rock_salt())
    check_density(replace(total, values=total.values * 1.125), rock_salt())  # 9: a charged cell
    check_density(replace(total, values=total.values * 1.004), rock_salt())  # within 0.05 e


def test_a_stated_number_is_held_to_one_percent(total: DensityData) -> None:
    check_count(8.07, 8.0)
    with pytest.raises(InputError, match=r"8\.090 electrons, its source states 8\.000"):
        check_count(8.09, 8.0)
    with pytest.raises(InputError, match="states nan"):
        check_count(8.0, float("nan"))
    with pytest.raises(InputError, match=r"states 9\.000"):
        check_density(total, rock_salt(), electrons=9.0)


def test_spin_and_deformation_are_measured_against_the_total(total: DensityData) -> None:
    spin = replace(total, kind="spin", values=-1.2 * total.values)
    check_density(spin, rock_salt())  # 9.6 of at most 28
    with pytest.raises(InputError, match=r"moment of -9\.600 mu_B, with 8\.000 electrons"):
        check_densities([spin, total], rock_salt())
    moved = replace(total, kind="deformation", values=total.values * 0.02)
    with pytest.raises(InputError, match=r"integrates to 0\.160 e instead of 0"):
        check_densities([total, moved], rock_salt())
    with pytest.raises(InputError, match="two total densities"):
        check_densities([total, total], rock_salt())
    check_densities([total, replace(total, level_of_theory="r2SCAN")], rock_salt())


@pytest.mark.parametrize(
    ("element", "fewest", "most"),
    [
        ("H", 1, 1), ("He", 2, 2), ("Li", 1, 3), ("Ne", 8, 10), ("Na", 1, 11), ("Cl", 7, 17), ("Ca", 2, 20),
        ("Sc", 3, 21), ("Fe", 8, 26), ("Cu", 1, 29), ("Zn", 2, 30), ("Ga", 3, 31), ("I", 7, 53), ("Cs", 1, 55),
        ("La", 2, 57), ("Yb", 2, 70), ("Lu", 3, 71), ("W", 6, 74), ("Au", 1, 79), ("Pb", 4, 82), ("U", 2, 92),
    ],
)  # fmt: skip
def test_fewest_and_most_electrons_by_element(element: str, fewest: int, most: int) -> None:
    assert valence_range(Structure(Lattice.cubic(4), [element], [[0, 0, 0]])) == (fewest, most)


def test_one_crystal_in_two_cells() -> None:
    same_crystal(rock_salt(), rock_salt(a=5.7, primitive=False))
    with pytest.raises(InputError, match=r"structure is NaCl, its density was calculated for Na"):
        same_crystal(rock_salt(), Structure(Lattice.cubic(4), ["Na"], [[0, 0, 0]]))
    with pytest.raises(InputError, match=r"Å\^3 an atom"):
        same_crystal(rock_salt(), rock_salt(a=6.5))


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(*[st.integers(8, 40)] * 3),
    target=st.tuples(*[st.integers(8, 64)] * 3),
    seed=st.integers(0, 2**16),
)
def test_regridding_keeps_every_electron(shape: tuple[int, int, int], target: tuple[int, int, int], seed: int) -> None:
    values = np.random.default_rng(seed).normal(1.0, 1.0, shape)  # white noise: the hardest field there is
    density = DensityData("total", "GGA", values, np.eye(3) * 4.0)
    found = regrid(density, target)
    assert found.values.shape == target
    assert found.n_electrons == pytest.approx(density.n_electrons, rel=1e-12)


@pytest.mark.parametrize(("points", "tolerance"), [(24, 1e-10), (32, 1e-12)])
def test_a_gaussian_arrives_where_it_belongs(gaussian_density: Make, points: int, tolerance: float) -> None:
    found = regrid(gaussian_density(rock_salt(), (points,) * 3, CHARGES))
    exact = gaussian_density(rock_salt(), (60, 60, 60), CHARGES)
    assert found.n_electrons == pytest.approx(8.0, rel=1e-12)
    np.testing.assert_allclose(found.values, exact.values, atol=tolerance * exact.values.max())


def test_a_density_with_cusps_keeps_its_electrons_and_its_values(gaussian_density: Make) -> None:
    # Like a PAW density: a narrow peak, and negative where pseudo-density and compensation charge meet.
    broad, narrow = gaussian_density(rock_salt(), (30,) * 3, CHARGES), gaussian_density(rock_salt(), (30,) * 3, SHARP)
    density = replace(broad, values=2 * broad.values - narrow.values)
    assert density.values.min() < 0
    found = regrid(density)
    assert found.n_electrons == pytest.approx(8.0, rel=1e-12)
    np.testing.assert_allclose(found.values[::2, ::2, ::2], density.values, atol=1e-12 * abs(density.values).max())
    # pyrho's own way loses electrons by its linear step.
    linear = PGrid(gaussian_density(rock_salt(), (32,) * 3, SHARP).values, density.lattice)
    changed = linear.get_transformed(np.eye(3), [60] * 3, up_sample=1).grid_data.mean() * density.volume
    assert abs(changed / 8.0 - 1) > 1e-4


def test_regridding_is_the_limit_of_pyrhos_up_sampling(gaussian_density: Make) -> None:
    density = gaussian_density(rock_salt(), (12,) * 3, SHARP)
    # 5 x 12 contains every wanted point: there, and only there, pyrho's linear step is exact.
    theirs = PGrid(density.values, density.lattice).get_transformed(np.eye(3), [60] * 3, up_sample=5).grid_data
    np.testing.assert_allclose(regrid(density).values, theirs, atol=1e-10)


def test_the_same_grid_is_left_alone(gaussian_density: Make) -> None:
    density = gaussian_density(rock_salt(), (60,) * 3, SHARP)
    assert np.array_equal(regrid(density).values, density.values)


def test_a_conventional_cell_maps_onto_the_primitive_one(gaussian_density: Make) -> None:
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
def test_other_cells_arrive_at_the_primitive_one(gaussian_density: Make, multiple: list[list[int]]) -> None:
    stored = rock_salt()
    stored.make_supercell(multiple)
    shape = tuple(2 * round(length / 0.2) for length in stored.lattice.abc)
    found = regrid_primitive(gaussian_density(stored, shape, CHARGES), stored, points=24)
    expected = gaussian_density(rock_salt(), (24,) * 3, CHARGES)
    assert found.n_electrons == pytest.approx(8.0, rel=1e-9)
    # Which of the equivalent axes comes first is open, the values are the same.
    np.testing.assert_allclose(np.sort(found.values.ravel()), np.sort(expected.values.ravel()), atol=1e-4)
    np.testing.assert_allclose(Lattice(found.lattice).angles, 60.0, atol=1e-6)


def test_a_cell_that_is_no_simple_multiple_is_refused(gaussian_density: Make) -> None:
    stored = rock_salt()
    stored.make_supercell([[5, 0, 0], [0, 1, 0], [0, 0, 1]])
    with pytest.raises(InputError, match=r"cell of NaCl \(10 atoms\) is no simple multiple"):
        regrid_primitive(gaussian_density(stored, (60, 16, 16), CHARGES), stored)
