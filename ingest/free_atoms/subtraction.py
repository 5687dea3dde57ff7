"""Deformation densities: the valence density of a crystal minus that of superposed free atoms.

Sources such as the Materials Project publish only the valence density. Inside the atoms its shape
depends on the pseudopotentials; only the charge of each sphere is physical. Therefore a free atom
is subtracted outside the spheres, and inside them the spherical part of the difference is replaced
by a smooth curve of the same charge:

1. Free atoms, calculated once (:mod:`ingest.free_atoms.tables`), are summed in reciprocal space.
2. In a sphere around each atom, the spherical average of the difference is replaced by
   a + b r^2 + c r^4 with the same charge, and the same value and slope at the sphere. Other
   multipoles are unchanged.

Both steps conserve the number of electrons and the symmetry. ``docs/lab/densities.md`` has the
measured errors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ingest.densities.checks import check_lattice
from ingest.free_atoms.tables import TABLE_VERSION, possible_valences, radial_density
from ingest.free_atoms.waves import RadialGrid, Waves
from registry.crystals import DensityData
from registry.errors import InputError
from registry.properties import FREE_ATOMS

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["deformation", "sphere_radii", "superposition", "totals_without_deformation"]

_SPHERES = {1: 0.55, 2: 0.75}
_SPHERE = 1.4
"""Radii of the spheres in which the pseudopotential determines the density: H and He, Li to Ne, all others [Å].

The largest augmentation radii of published PAW data sets; for heavy atoms selected on a subset of crystals.
"""

_SMOOTHED_ROWS = {1: 0.5, 2: 0.6}
_SMOOTHED = 0.7
"""Radius inside which a free atom's density is a polynomial, by rows as above [Å]; no grid resolves the nodes of 5s."""

_ATOM_STEP = 0.005
_SPHERE_STEP = 0.01


def superposition(
    structure: Structure,
    shape: tuple[int, int, int],
    *,
    n_electrons: float,
    valences: Mapping[str, int] | None = None,
) -> NDArray[np.float64]:
    """Sum of the valence densities of free atoms at the sites of a crystal.

    Each is the density of the spherical atom (PBE), smoothed within 0.5 to 0.7 Å of the nucleus with
    its charge conserved, and contains all waves that the grid represents.

    Parameters
    ----------
    structure
        Ordered structure; its cell is the grid's.
    shape
        Number of points along the three lattice vectors.
    n_electrons
        Electrons of the crystal's total density, which determine the valence shells
        (:func:`ingest.free_atoms.tables.possible_valences`); the sum is scaled to this number.
    valences
        Valence electrons of each element, if they are known.

    Returns
    -------
    ndarray
        Shape ``shape`` [e/Å^3]; its integral over the cell is ``n_electrons``.

    Raises
    ------
    InputError
        If an element has no table, or no choice of valence shells gives the number of electrons.
    """
    counts = _candidates(structure, n_electrons, valences)[0]
    waves = Waves.of(structure.lattice.matrix, shape)
    return waves.to_grid(_superposed(structure, waves, counts, n_electrons))


def deformation(total: DensityData, structure: Structure, *, valences: Mapping[str, int] | None = None) -> DensityData:
    """Deformation density: total density minus superposed free atoms, smoothed inside the atoms (see the module).

    If several choices of valence shells give the crystal's number of electrons, the choice is used
    for which the charges of the spheres around the free atoms differ least from those in the
    crystal: a wrong shell changes them by 2 electrons or more, a bond by tenths of an electron.

    Parameters
    ----------
    total
        Valence density [e/Å^3].
    structure
        Ordered structure of the same cell.
    valences
        Valence electrons of each element, if they are known.

    Returns
    -------
    DensityData
        Kind ``deformation`` on the same grid with the same data type [e/Å^3]; its integral is 0.
        Its level of theory is that of ``total`` followed by :data:`FREE_ATOMS`, and the
        provenance names the tables and the valence electrons.

    Raises
    ------
    InputError
        If ``total`` is not a total density or has another cell; if an element has no table, or
        no choice of valence shells gives the number of electrons.
    """
    if total.kind != "total":
        raise InputError(f"free atoms are subtracted from a total density, not from a {total.kind} density")
    check_lattice(total, structure)
    candidates = _candidates(structure, total.n_electrons, valences)
    shape = (total.values.shape[0], total.values.shape[1], total.values.shape[2])
    waves = Waves.of(total.lattice, shape)
    spectrum = waves.to_spectrum(total.values)
    radii = sphere_radii(structure)
    phases = [waves.phases(site.frac_coords) for site in structure]
    counts = candidates[0]
    if len(candidates) > 1:
        charges = [_sphere_charge(waves, spectrum, phase, radius) for phase, radius in zip(phases, radii, strict=True)]
        counts = min(candidates, key=lambda counts: _misfit(structure, counts, radii, charges))
    spectrum -= _superposed(structure, waves, counts, total.n_electrons)
    spectrum[0, 0, 0] = 0.0
    # All from the same spectrum, so that the order of the sites does not matter.
    changes = [_smoothed_inside(waves, spectrum, phase, radius) for phase, radius in zip(phases, radii, strict=True)]
    for change in changes:
        spectrum += change
    atoms = ", ".join(f"{element} {count}" for element, count in sorted(counts.items()))
    made = f"total minus superposed free atoms: {TABLE_VERSION}; valence electrons {atoms}"
    provenance = made if total.provenance is None else f"{made}; total: {total.provenance}"
    values = waves.to_grid(spectrum).astype(np.asarray(total.values).dtype, copy=False)
    return replace(
        total,
        kind="deformation",
        level_of_theory=total.level_of_theory + FREE_ATOMS,
        values=values,
        provenance=provenance,
    )


def sphere_radii(structure: Structure) -> NDArray[np.float64]:
    """Radii of the smoothed spheres, one per site [Å]; neighbouring spheres touch at most.

    0.55 for H and He, 0.75 for Li to Ne, 1.4 for all others; two spheres that would overlap are
    reduced in proportion.
    """
    full = np.array([_SPHERES.get(site.specie.row, _SPHERE) for site in structure])
    radii = full.copy()
    neighbours = structure.get_all_neighbors(2 * _SPHERE)
    for i, near in enumerate(neighbours):
        for other in near:
            radii[i] = min(radii[i], other.nn_distance * full[i] / (full[i] + full[other.index]))
    return radii


def totals_without_deformation(densities: Iterable[DensityData]) -> list[DensityData]:
    """Total densities without a deformation density of the same level of theory."""
    found = list(densities)
    covered = {density.level_of_theory for density in found if density.kind == "deformation"}
    covered |= {level_of_theory.removesuffix(FREE_ATOMS) for level_of_theory in covered}
    return [density for density in found if density.kind == "total" and density.level_of_theory not in covered]


def _candidates(structure: Structure, n_electrons: float, valences: Mapping[str, int] | None) -> list[dict[str, int]]:
    if not structure.is_ordered:
        raise InputError(
            f"{structure.composition.reduced_formula} has partially occupied sites; an ordered structure is required"
        )
    amounts = Counter(str(site.specie.symbol) for site in structure)
    if valences is None:
        return possible_valences(amounts, n_electrons)
    missing = sorted(amounts.keys() - valences.keys())
    if missing:
        raise InputError(f"no number of valence electrons is given for {', '.join(missing)}")
    return [{element: valences[element] for element in amounts}]


def _superposed(
    structure: Structure, waves: Waves, counts: Mapping[str, int], n_electrons: float
) -> NDArray[np.complex128]:
    """Spectrum of the superposed atoms [e]."""
    spectrum = np.zeros(waves.lengths.shape, dtype=np.complex128)
    for element, count in counts.items():
        positions = [site.frac_coords for site in structure if site.specie.symbol == element]
        factor = waves.form_factor(*_smooth_atom(element, count))
        for position in positions:
            spectrum += factor * waves.phases(position)
    # Grids lose about a thousandth of an electron; the deformation density must be neutral.
    scaled: NDArray[np.complex128] = spectrum * (n_electrons / spectrum[0, 0, 0].real)
    return scaled


@lru_cache(maxsize=256)
def _smooth_atom(element: str, electrons: int) -> tuple[RadialGrid, NDArray[np.float64]]:
    """4 pi r^2 n(r) of a free atom [e/Å], a + b r^2 + c r^4 + d r^6 inside.

    Value, slope and curvature are continuous, and the charge inside is conserved.
    """
    from pymatgen.core.periodic_table import Element
    from scipy.interpolate import CubicSpline

    table = radial_density(element, electrons)
    radius = _SMOOTHED_ROWS.get(Element(element).row, _SMOOTHED)
    curve = CubicSpline(table.radii, table.values)
    density = CubicSpline(table.radii[1:], table.values[1:] / (4 * np.pi * table.radii[1:] ** 2))
    inside = float(curve.integrate(0.0, radius))
    powers = 2.0 * np.arange(4)
    conditions = np.array(
        [
            radius**powers,
            powers * radius ** (powers - 1),
            powers * (powers - 1) * radius ** (powers - 2),
            4 * np.pi * radius ** (powers + 3) / (powers + 3),
        ]
    )
    coefficients = np.linalg.solve(conditions, [*(float(density(radius, order)) for order in range(3)), inside])
    radial = RadialGrid.of(float(table.radii[-1]), _ATOM_STEP)
    polynomial = 4 * np.pi * radial.r**2 * (radial.r[:, None] ** powers @ coefficients)
    values = np.where(radial.r < radius, polynomial, curve(radial.r))
    return radial, values * (electrons / radial.integral(values))


def _sphere_charge(
    waves: Waves, spectrum: NDArray[np.complex128], phases: NDArray[np.complex128], radius: float
) -> float:
    radial = RadialGrid.of(radius, _SPHERE_STEP)
    means, _ = waves.spherical_average(spectrum, phases, radial.r)
    return radial.integral(4 * np.pi * radial.r**2 * means)


def _misfit(structure: Structure, counts: Mapping[str, int], radii: NDArray[np.float64], charges: list[float]) -> float:
    """Sum over the sites of the differences between the charge of the sphere and that of the free atom [e]."""
    from scipy.interpolate import CubicSpline

    misfit = 0.0
    for site, radius, charge in zip(structure, radii, charges, strict=True):
        atom = radial_density(site.specie.symbol, counts[site.specie.symbol])
        misfit += abs(charge - float(CubicSpline(atom.radii, atom.values).integrate(0.0, radius)))
    return misfit


def _smoothed_inside(
    waves: Waves, spectrum: NDArray[np.complex128], phases: NDArray[np.complex128], radius: float
) -> NDArray[np.complex128]:
    """Spectrum of the correction that makes the spherical part inside a sphere a smooth curve of the same charge."""
    radial = RadialGrid.of(radius, _SPHERE_STEP)
    means, slope = waves.spherical_average(spectrum, phases, radial.r)
    shell = 4 * np.pi * radial.r**2
    powers = 2.0 * np.arange(3)
    conditions = np.array(
        [radius**powers, powers * radius ** (powers - 1), 4 * np.pi * radius ** (powers + 3) / (powers + 3)]
    )
    coefficients = np.linalg.solve(conditions, [means[-1], slope, radial.integral(shell * means)])
    change = radial.r[:, None] ** powers @ coefficients - means
    factor = waves.form_factor(radial, shell * change)
    factor[0, 0, 0] = 0.0
    moved: NDArray[np.complex128] = factor * phases
    return moved
