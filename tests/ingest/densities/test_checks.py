"""Checks of densities: grid, cell and number of electrons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from ingest.densities.checks import (
    check_count,
    check_density,
    check_same_crystal,
    valence_range,
)
from registry.crystals import DensityData
from registry.errors import InputError
from tests.ingest.conftest import MakeDensity, rock_salt

CHARGES = {"Na": (1.0, 0.5), "Cl": (7.0, 0.45)}


@pytest.fixture
def total(gaussian_density: MakeDensity) -> DensityData:
    return gaussian_density(rock_salt(), (24, 24, 24), CHARGES)


def test_valid_densities_pass(total: DensityData) -> None:
    assert total.n_electrons == pytest.approx(8.0, abs=1e-9)
    check_density(total, rock_salt())
    check_density(total, rock_salt(), electrons=8.0)
    spin = replace(total, kind="spin", values=total.values / 4)
    deformation = replace(total, kind="deformation", values=total.values - total.values.mean())
    for density in (spin, deformation):
        check_density(density, rock_salt(), electrons=8.0)


def test_orientation_of_the_cell_may_differ(total: DensityData) -> None:
    rotated = Structure(Lattice.from_parameters(*rock_salt().lattice.parameters), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])
    assert not np.allclose(rotated.lattice.matrix, total.lattice)
    check_density(total, rotated)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_counted(total: DensityData, wrong: float) -> None:
    values = total.values.copy()
    values[0, 1, 2] = values[3, 4, 5] = wrong
    with pytest.raises(InputError, match=r"2 of 13824 values that are not finite"):
        check_density(replace(total, values=values), rock_salt())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": np.ones((7, 24, 24))}, "at least 8 points"),
        ({"values": np.ones((24, 24))}, "three axes"),
        ({"values": np.ones((24, 24, 24), dtype=int)}, "real values"),
        ({"values": np.ones((24, 24, 24), dtype=complex)}, "real values"),
        ({"lattice": np.zeros((3, 3))}, "has no cell"),
        ({"kind": "potential"}, "unknown density kind"),
    ],
)
def test_invalid_grid_is_refused(total: DensityData, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_density(replace(total, **change), rock_salt())


def test_coarse_grid_is_refused(gaussian_density: MakeDensity) -> None:
    with pytest.raises(InputError, match=r"0\.62 Å apart"):
        check_density(gaussian_density(rock_salt(a=5.6, primitive=False), (9, 16, 16), CHARGES), rock_salt())


def test_message_of_another_cell_contains_both_cells(total: DensityData) -> None:
    with pytest.raises(InputError, match=r"\(3\.9598, 3\.9598, 3\.9598\).*\(4\.0093"):
        check_density(total, rock_salt(a=5.67))
    with pytest.raises(InputError, match="was calculated for"):
        check_density(total, rock_salt(primitive=False))


@pytest.mark.parametrize("factor", [1e-3, 0.12, 3.6, 79.4])
def test_impossible_number_of_electrons_is_refused(total: DensityData, factor: float) -> None:
    # 1 + 7 valence electrons, 11 + 17 electrons in all.
    with pytest.raises(InputError, match=r"8 \(valence\) to 28 \(all\) electrons"):
        check_density(replace(total, values=total.values * factor), rock_salt())


def test_non_integer_number_of_electrons_is_refused(total: DensityData) -> None:
    with pytest.raises(InputError, match=r"contains 8\.800 electrons, which is not a whole number"):
        check_density(replace(total, values=total.values * 1.1), rock_salt())
    check_density(replace(total, values=total.values * 1.125), rock_salt())  # 9: a charged cell
    check_density(replace(total, values=total.values * 1.004), rock_salt())  # within 0.05 e


def test_stated_number_of_electrons_may_differ_by_one_percent(total: DensityData) -> None:
    check_count(8.07, 8.0)
    with pytest.raises(InputError, match=r"8\.090 electrons, its source states 8\.000"):
        check_count(8.09, 8.0)
    with pytest.raises(InputError, match="states nan"):
        check_count(8.0, float("nan"))
    with pytest.raises(InputError, match=r"states 9\.000"):
        check_density(total, rock_salt(), electrons=9.0)


def test_spin_and_deformation_are_compared_with_the_total(total: DensityData) -> None:
    spin = replace(total, kind="spin", values=-1.2 * total.values)
    check_density(spin, rock_salt())  # 9.6 of at most 28
    with pytest.raises(InputError, match=r"moment of -9\.600 mu_B, with 8\.000 electrons"):
        check_density(spin, rock_salt(), electrons=total.n_electrons)
    moved = replace(total, kind="deformation", values=total.values * 0.02)
    with pytest.raises(InputError, match=r"integrates to 0\.160 e instead of 0"):
        check_density(moved, rock_salt(), electrons=total.n_electrons)


@pytest.mark.parametrize(
    ("element", "minimum", "maximum"),
    [
        ("H", 1, 1), ("He", 2, 2), ("Li", 1, 3), ("Ne", 8, 10), ("Na", 1, 11), ("Cl", 7, 17), ("Ca", 2, 20),
        ("Sc", 3, 21), ("Fe", 8, 26), ("Cu", 1, 29), ("Zn", 2, 30), ("Ga", 3, 31), ("I", 7, 53), ("Cs", 1, 55),
        ("La", 2, 57), ("Yb", 2, 70), ("Lu", 3, 71), ("W", 6, 74), ("Au", 1, 79), ("Pb", 4, 82), ("U", 2, 92),
    ],
)  # fmt: skip
def test_valence_range_by_element(element: str, minimum: int, maximum: int) -> None:
    assert valence_range(Structure(Lattice.cubic(4), [element], [[0, 0, 0]])) == (minimum, maximum)


def test_check_same_crystal_accepts_another_cell() -> None:
    check_same_crystal(rock_salt(), rock_salt(a=5.7, primitive=False))
    with pytest.raises(InputError, match=r"structure is NaCl, its density was calculated for Na"):
        check_same_crystal(rock_salt(), Structure(Lattice.cubic(4), ["Na"], [[0, 0, 0]]))
    with pytest.raises(InputError, match=r"Å\^3 per atom"):
        check_same_crystal(rock_salt(), rock_salt(a=6.5))
