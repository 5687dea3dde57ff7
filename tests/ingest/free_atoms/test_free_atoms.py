"""Free atoms and deformation densities, compared with exact results."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure
from scipy.interpolate import CubicSpline

from ingest.densities.checks import check_density
from ingest.free_atoms import deformation, superposition
from ingest.free_atoms.subtraction import sphere_radii
from ingest.free_atoms.tables import free_atoms, possible_valences, radial_density
from ingest.free_atoms.validation import DensityComparison, compare, summarize
from ingest.free_atoms.waves import RadialGrid, Waves
from ingest.preparation.options import IngestOptions
from ingest.preparation.prepare import prepare
from ingest.sources.base import RawCrystal
from registry.crystals import DensityData
from registry.errors import InputError
from tests.ingest.conftest import MakeDensity

BOHR = 0.529177210903

# Valence electrons of the Materials Project's potentials, of one element of each kind.
SHELLS = {
    ("H", 1): "1s1",
    ("Li", 3): "1s2 2s1",
    ("O", 6): "2s2 2p4",
    ("Na", 7): "2p6 3s1",
    ("Fe", 14): "3p6 3d6 4s2",
    ("Ga", 13): "3d10 4s2 4p1",
    ("Ag", 11): "4d10 5s1",
    ("Ba", 10): "5s2 5p6 6s2",
    ("Nd", 11): "5s2 5p6 5d1 6s2",
    ("Nd", 14): "4f4 5s2 5p6 6s2",
    ("Eu", 17): "4f7 5s2 5p6 6s2",
    ("Gd", 18): "4f7 5s2 5p6 5d1 6s2",
    ("Dy", 9): "5p6 5d1 6s2",
    ("Yb", 8): "5p6 6s2",
    ("Lu", 9): "5p6 5d1 6s2",
    ("Hf", 10): "5p6 5d2 6s2",
    ("W", 12): "5p6 5d4 6s2",
    ("Pb", 14): "5d10 6s2 6p2",
    ("U", 14): "5f3 6s2 6p6 6d1 7s2",
}


def rock_salt(cation: str = "Na", anion: str = "Cl", a: float = 5.64) -> Structure:
    cell = Lattice([[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]])
    return Structure(cell, [cation, anion], [[0, 0, 0], [0.5, 0.5, 0.5]])


def as_total(structure: Structure, values: np.ndarray, provenance: str | None = None) -> DensityData:
    return DensityData("total", "GGA", values, np.array(structure.lattice.matrix), provenance)


@pytest.mark.parametrize(("element", "electrons"), SHELLS)
def test_valence_shells(element: str, electrons: int) -> None:
    atom = radial_density(element, electrons)
    assert sorted(atom.shells) == sorted(SHELLS[element, electrons].split())
    assert CubicSpline(atom.radii, atom.values).integrate(0, atom.radii[-1]) == pytest.approx(electrons, rel=1e-4)
    assert (atom.values >= 0).all()


def test_every_element_to_curium_has_a_table() -> None:
    from pymatgen.core.periodic_table import Element

    radii, atoms = free_atoms()
    for number in range(1, 97):
        atom = atoms[Element.from_Z(number).symbol]
        assert sum(atom.occupations) <= number
        norms = [float(CubicSpline(radii, squares).integrate(0, radii[-1])) for squares in atom.squares]
        assert norms == pytest.approx([1.0] * len(norms), rel=1e-4)


def test_materials_project_potentials_all_have_their_shells() -> None:
    from ingest.free_atoms.tables import _valences

    conventions, _ = _valences()
    assert set(conventions) == {"MPRelaxSet", "MPSCANRelaxSet", "GPAW"}
    for element, count in conventions["MPRelaxSet"].items():
        assert radial_density(element, count).values.shape == radial_density("H", 1).values.shape


def test_hydrogen_is_close_to_the_exact_1s_orbital() -> None:
    # n = exp(-2 r / a0) / (pi a0^3); the self-interaction left in PBE makes it a little wider.
    atom = radial_density("H", 1)
    exact = 4 * (atom.radii / BOHR) ** 2 * np.exp(-2 * atom.radii / BOHR) / BOHR
    curve = CubicSpline(atom.radii, np.abs(atom.values - exact))
    assert curve.integrate(0, atom.radii[-1]) < 0.12
    mean = CubicSpline(atom.radii, atom.values * atom.radii).integrate(0, atom.radii[-1])
    assert mean == pytest.approx(1.5 * BOHR, rel=0.1)


def test_form_factor_of_a_gaussian() -> None:
    radial = RadialGrid.of(8.0, 0.01)
    sigma = 0.6
    values = 4 * np.pi * radial.r**2 * np.exp(-(radial.r**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2) ** 1.5
    waves = np.linspace(0, 15, 200)
    assert radial.form_factor(values, waves) == pytest.approx(np.exp(-(sigma**2) * waves**2 / 2), abs=1e-6)


def test_spherical_average_of_a_gaussian(gaussian_density: MakeDensity) -> None:
    structure = Structure(Lattice.cubic(8.0), ["Na"], [[0.1, 0.2, 0.3]])
    density = gaussian_density(structure, (40, 40, 40), {"Na": (1, 0.5)})
    waves = Waves.of(density.lattice, (40, 40, 40))
    r = np.linspace(0, 1.5, 16)
    phases = waves.phases(structure[0].frac_coords)
    means, slope = waves.spherical_average(waves.to_spectrum(density.values), phases, r)
    exact = np.exp(-(r**2) / (2 * 0.25)) / (2 * np.pi * 0.25) ** 1.5
    assert means == pytest.approx(exact, abs=2e-4)
    assert slope == pytest.approx(-1.5 / 0.25 * exact[-1], abs=2e-4)


@settings(max_examples=10, deadline=None)
@given(
    st.tuples(*[st.integers(18, 31)] * 3),
    st.tuples(*[st.floats(0, 1)] * 3),
    st.sampled_from([("Na", "Cl", 14), ("Na", "Cl", 8), ("Fe", "O", 20), ("Ba", "Te", 16)]),
)
def test_superposition_has_the_number_of_electrons(
    shape: tuple[int, int, int], origin: tuple[float, float, float], case: tuple[str, str, int]
) -> None:
    structure = rock_salt(*case[:2])
    structure.translate_sites([0, 1], origin)
    values = superposition(structure, shape, n_electrons=case[2])
    assert values.mean() * structure.volume == pytest.approx(case[2], rel=1e-12)


def test_superposition_is_periodic_and_symmetric() -> None:
    structure = rock_salt()
    values = superposition(structure, (30, 30, 30), n_electrons=14)
    moved = structure.copy()
    moved.translate_sites([1], [1, -2, 3], to_unit_cell=False)
    assert superposition(moved, (30, 30, 30), n_electrons=14) == pytest.approx(values, abs=1e-10)
    shifted = structure.copy()
    shifted.translate_sites([0, 1], [0.1, 0.2, 0.3])
    rolled = np.roll(values, (3, 6, 9), axis=(0, 1, 2))
    assert superposition(shifted, (30, 30, 30), n_electrons=14) == pytest.approx(rolled, abs=1e-10)
    # Threefold axis, and inversion through the atom at the origin.
    assert np.moveaxis(values, (0, 1, 2), (1, 2, 0)) == pytest.approx(values, abs=1e-10)
    assert np.roll(values[::-1, ::-1, ::-1], 1, axis=(0, 1, 2)) == pytest.approx(values, abs=1e-10)


def test_superpositions_of_conventional_and_primitive_cell_are_equal() -> None:
    primitive = rock_salt()
    conventional = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    small = superposition(primitive, (40, 40, 40), n_electrons=14)
    large = superposition(conventional, (80, 80, 80), n_electrons=56)
    i = np.arange(40)
    j, k, m = np.meshgrid(i, i, i, indexing="ij")
    # Their grids carry different waves, so the values at the nuclei differ a little (there it is 17.6 e/Å^3).
    assert small == pytest.approx(large[(k + m) % 80, (j + m) % 80, (j + k) % 80], abs=0.05)


def test_atom_in_a_large_cell_equals_its_table() -> None:
    structure = Structure(Lattice.cubic(9.0), ["O"], [[0, 0, 0]])
    values = superposition(structure, (72, 72, 72), n_electrons=6)
    atom = radial_density("O", 6)
    r = np.arange(6, 20) * 9.0 / 72  # beyond the smoothed part, before the next cell's atom matters
    expected = CubicSpline(atom.radii[1:], atom.values[1:] / (4 * np.pi * atom.radii[1:] ** 2))(r)
    assert values[6:20, 0, 0] == pytest.approx(expected, rel=0.02, abs=2e-4)


def test_superposed_atoms_have_no_deformation() -> None:
    structure = rock_salt()
    total = as_total(structure, superposition(structure, (32, 32, 32), n_electrons=14), "VASP")
    found = deformation(total, structure)
    assert found.kind == "deformation"
    assert found.level_of_theory == "GGA-free-atoms"  # a model trained on calculated ones refuses it
    assert found.provenance is not None
    assert found.provenance.startswith("total minus superposed free atoms")
    assert found.provenance.endswith("Cl 7, Na 7; total: VASP")
    assert np.abs(found.values).max() < 2e-3


def test_deformation_outside_is_total_minus_superposition(gaussian_density: MakeDensity) -> None:
    structure = rock_salt()
    total = gaussian_density(structure, (32, 32, 32), {"Na": (6, 0.4), "Cl": (8, 0.6)})
    found = deformation(total, structure)
    check_density(found, structure, electrons=14)
    assert abs(found.n_electrons) < 1e-10
    plain = total.values - superposition(structure, (32, 32, 32), n_electrons=14)
    axes = np.stack(np.meshgrid(*[np.arange(32) / 32] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    away = structure.lattice.get_all_distances(axes, structure.frac_coords) > sphere_radii(structure) + 0.15
    outside = away.all(axis=1).reshape(32, 32, 32)
    assert outside.sum() > 1000
    assert found.values[outside] == pytest.approx(plain[outside], abs=5e-3)


def test_deformation_depends_on_the_charge_and_not_on_the_shape_inside_the_atoms(
    gaussian_density: MakeDensity,
) -> None:
    # Two pseudo-densities of equal charge and different shapes near the nucleus.
    structure = rock_salt()
    first, second = (
        deformation(gaussian_density(structure, (40, 40, 40), {"Na": (7, 0.25), "Cl": (7, width)}), structure)
        for width in (0.2, 0.3)
    )
    scale = np.abs(first.values).max()
    assert second.values == pytest.approx(first.values, abs=0.02 * scale)
    charged = deformation(gaussian_density(structure, (40, 40, 40), {"Na": (6, 0.25), "Cl": (8, 0.2)}), structure)
    assert np.abs(charged.values - first.values).max() > 0.05 * scale


def test_spheres_touch_at_most() -> None:
    assert sphere_radii(rock_salt("Na", "Cl")) == pytest.approx([1.4, 1.4])
    narrow = sphere_radii(rock_salt("Ti", "C", 4.0))
    assert narrow.sum() <= 2.0 + 1e-9
    assert narrow[0] / narrow[1] == pytest.approx(1.4 / 0.75, rel=0.05)


def test_number_of_electrons_determines_the_valence_shells() -> None:
    assert possible_valences({"Na": 1, "Cl": 1}, 14.01)[0] == {"Cl": 7, "Na": 7}
    assert possible_valences({"Na": 1, "Cl": 1}, 8)[0] == {"Cl": 7, "Na": 1}
    # The Materials Project's choice comes first where several fit: Sc 11, Ru 14 and Li 3.
    choices = possible_valences({"Li": 1, "Ru": 1, "Sc": 2}, 39)
    assert choices[0] == {"Li": 3, "Ru": 14, "Sc": 11}
    assert {"Li": 1, "Ru": 16, "Sc": 11} in choices


def test_charge_of_the_spheres_decides_between_valence_shells() -> None:
    structure = Structure.from_spacegroup(
        "Fm-3m", Lattice.cubic(6.4), ["Li", "Ru", "Sc"], [[0, 0, 0], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]]
    ).get_primitive_structure()
    for valences in ({"Li": 3, "Ru": 14, "Sc": 11}, {"Li": 1, "Ru": 16, "Sc": 11}):
        values = superposition(structure, (32, 32, 32), n_electrons=39, valences=valences)
        found = deformation(as_total(structure, values), structure)
        counted = ", ".join(f"{element} {count}" for element, count in sorted(valences.items()))
        assert found.provenance is not None
        assert found.provenance.endswith(counted)


def test_element_without_a_table_is_refused() -> None:
    structure = rock_salt("Fm", "Cl")
    with pytest.raises(InputError, match="no table of a free atom of Fm"):
        superposition(structure, (20, 20, 20), n_electrons=20)
    with pytest.raises(InputError, match="no shells of a free Na atom hold 5 valence electrons"):
        radial_density("Na", 5)
    with pytest.raises(InputError, match="no table of the free atom Xx"):
        radial_density("Xx", 5)


def test_impossible_number_of_electrons_is_refused() -> None:
    structure = rock_salt()
    with pytest.raises(InputError, match=r"13\.000 electrons, which no choice .*\(Cl 7; Na 1/7/9\)"):
        superposition(structure, (20, 20, 20), n_electrons=13)


def test_other_kinds_and_cells_are_refused(gaussian_density: MakeDensity) -> None:
    structure = rock_salt()
    spin = gaussian_density(structure, (20, 20, 20), {"Na": (7, 0.4), "Cl": (7, 0.6)}, kind="spin")
    with pytest.raises(InputError, match="not from a spin density"):
        deformation(spin, structure)
    total = gaussian_density(structure, (20, 20, 20), {"Na": (7, 0.4), "Cl": (7, 0.6)})
    with pytest.raises(InputError, match="has a cell of"):
        deformation(total, rock_salt(a=5.9))
    disordered = Structure(structure.lattice, [{"Na": 0.5, "K": 0.5}, "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with pytest.raises(InputError, match="partially occupied"):
        superposition(disordered, (20, 20, 20), n_electrons=14)
    with pytest.raises(InputError, match="no number of valence electrons is given for Na"):
        deformation(total, structure, valences={"Cl": 7})


@dataclass(frozen=True)
class Record:
    """A record of a given crystal."""

    raw: RawCrystal
    source: str = "made"
    source_id: str = "one"
    has_description: bool = False

    def input_sha256(self) -> str:
        return "0" * 64

    def read(self, *, level_of_theory: str | None = None) -> RawCrystal:
        return self.raw


def test_ingest_derives_deformation_only_with_the_option(gaussian_density: MakeDensity) -> None:
    structure = rock_salt()
    total = gaussian_density(structure, (24, 24, 24), {"Na": (6.5, 0.4), "Cl": (7.5, 0.6)})

    def kinds(raw: RawCrystal, **options: bool) -> list[str]:
        done = prepare(Record(raw), IngestOptions(texts="none", recipes=(), **options))
        assert done.data is not None
        assert done.problems == ()
        return [density.kind for density in done.data.densities]

    plain = RawCrystal("NaCl", structure, densities=(total,), density_structure=structure)
    with_option = RawCrystal(
        "NaCl", structure, densities=(total,), density_structure=structure, derive_deformation=True
    )
    assert kinds(plain) == ["total"]
    assert kinds(plain, derive_deformation=True) == ["total", "deformation"]
    assert kinds(with_option) == ["total", "deformation"]
    own = deformation(total, structure)
    with_own = RawCrystal("NaCl", structure, densities=(total, own), density_structure=structure)
    assert kinds(with_own, derive_deformation=True) == ["total", "deformation"]
    assert IngestOptions(derive_deformation=True).fingerprint() != IngestOptions().fingerprint()


def test_reason_of_a_missing_deformation_is_recorded(gaussian_density: MakeDensity) -> None:
    structure = rock_salt()
    total = gaussian_density(structure, (24, 24, 24), {"Na": (5, 0.4), "Cl": (8, 0.6)})
    raw = RawCrystal("NaCl", structure, densities=(total,), density_structure=structure, derive_deformation=True)
    done = prepare(Record(raw), IngestOptions(texts="none", recipes=("metric",)))
    assert done.data is not None
    assert [density.kind for density in done.data.densities] == ["total"]
    assert "no choice of valence shells" in done.problems[0]
    assert "recipe metric needs a deformation density" in done.problems[1]


def test_comparison_with_itself_is_perfect(gaussian_density: MakeDensity) -> None:
    structure = rock_salt()
    total = gaussian_density(structure, (32, 32, 32), {"Na": (6.5, 0.4), "Cl": (7.5, 0.6)})
    raw = RawCrystal("NaCl", structure, densities=(total, deformation(total, structure)), density_structure=structure)
    found = compare(Record(raw), outside=0.8)
    assert (found.correlation, found.interstitial_correlation, found.image_correlation) == pytest.approx((1, 1, 1))
    assert (found.l1, found.l2, found.interstitial_l1, found.interstitial_l2) == (0, 0, 0, 0)
    with pytest.raises(InputError, match="no total and deformation density"):
        compare(Record(RawCrystal("NaCl", structure, densities=(total,), density_structure=structure)))


def test_summary_has_medians_and_worst_per_prototype() -> None:
    rows = summarize(
        [
            DensityComparison(str(r), "NaCl", prototype, r, 1 - r, 1 - r, None if r < 0.6 else r, 0.1, 0.2, r)
            for prototype, r in (("A", 0.5), ("B", 0.7), ("B", 0.9), ("B", 0.8))
        ]
    )
    assert [(row["prototype"], row["crystals"]) for row in rows] == [("B", 3), ("A", 1), ("all", 4)]
    assert (rows[0]["correlation"], rows[0]["worst_correlation"], rows[0]["worst_l1"]) == pytest.approx((0.8, 0.7, 0.3))
    assert rows[1]["interstitial_correlation"] is None
    assert rows[2]["worst_interstitial_correlation"] == 0.7
