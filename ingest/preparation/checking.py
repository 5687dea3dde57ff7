"""Checks of the data of a source: structure against density cell, formula, space group, densities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ingest.preparation.options import IngestOptions
from ingest.preparation.outcome import Problems
from ingest.sources.base import RawCrystal
from registry.crystals import DensityData
from registry.errors import InputError
from registry.formulas import composition, composition_key

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

    from ingest.slices.space_groups import SpaceGroup

__all__ = ["check_space_group", "reduced_formula", "same_cell", "structure_and_cell", "valid_densities"]


def structure_and_cell(raw: RawCrystal, problems: Problems) -> tuple[Structure | None, Structure | None]:
    """Structure to store, and structure in the cell of the grids; the latter is None without a usable density.

    They differ at most in orientation: a CIF file has none, and a slice must not depend on whether
    there is a CIF file.
    """
    given, own = raw.structure, raw.density_structure
    if given is None or own is None:
        return (own if given is None else given), own
    match = _match_relaxed if raw.relaxed_apart else _match_cell
    cell = problems.attempt("density", lambda: match(given, own))
    return (given, None) if cell is None else (cell, own)


def same_cell(given: Structure, own: Structure) -> bool:
    """Whether two structures have equal cells and atoms at equal positions, in any order of the atoms."""
    if len(given) != len(own):
        return False
    lengths = np.allclose(given.lattice.abc, own.lattice.abc, rtol=1e-3, atol=0.0)
    if not lengths or not np.allclose(given.lattice.angles, own.lattice.angles, rtol=0.0, atol=0.1):
        return False
    # Every atom has exactly one atom of its element within 0.05 Å.
    distances = own.lattice.get_all_distances(given.frac_coords, own.frac_coords)
    numbers = [np.array([site.specie.Z for site in structure]) for structure in (given, own)]
    near = (distances < 0.05) & (numbers[0][:, None] == numbers[1][None, :])
    return bool((near.sum(axis=0) == 1).all() and (near.sum(axis=1) == 1).all())


def reduced_formula(raw: RawCrystal, structure: Structure | None) -> str:
    """Reduced formula, in pymatgen's spelling.

    Raises
    ------
    InputError
        If there is neither a formula nor a structure, or they do not agree.
    """
    if structure is None and raw.formula is None:
        raise InputError("; ".join(["neither a formula nor a structure", *raw.problems]))
    if raw.formula is not None:
        composition(raw.formula)  # raises for an invalid formula
    if structure is None:
        from pymatgen.core.composition import Composition

        return str(Composition(raw.formula).reduced_formula)
    found = str(structure.composition.element_composition.reduced_formula)
    if raw.formula is not None and composition_key(raw.formula) != composition_key(found):
        raise InputError(f"formula {raw.formula!r} does not agree with the structure, which is {found}; correct one")
    return found


def check_space_group(structure: Structure | None, options: IngestOptions, problems: Problems) -> SpaceGroup | None:
    """Space group of a structure, None without one.

    Parameters
    ----------
    structure
        None where the crystal has none.
    options
        Which space groups are kept.
    problems
        Known fault of the crystal, for the message.

    Raises
    ------
    InputError
        If it is not among those that the options keep.
    """
    from ingest.slices.space_groups import space_group

    if structure is None:
        if options.fcc and not options.assume_fcc:
            reasons = ["no structure, so its space group is unknown (--assume-fcc keeps it)", *problems.lines]
            raise InputError("; ".join(reasons))
        return None
    group = space_group(structure)
    if options.fcc and not group.f_centred_cubic:
        raise InputError(f"space group {group} is not F-centred cubic")
    return group


def valid_densities(densities: Iterable[DensityData], structure: Structure, problems: Problems) -> list[DensityData]:
    """Densities that pass the checks; each kind is checked, and left out, separately.

    Parameters
    ----------
    densities
        Densities of one crystal [e/Å^3].
    structure
        Structure in the cell of the grids.
    problems
        Receives a line for each density that is left out.
    """
    from ingest.densities.checks import check_density

    electrons: dict[str, float] = {}
    kept: list[DensityData] = []
    # The total first: the others are compared with its number of electrons.
    for density in sorted(densities, key=lambda density: density.kind != "total"):
        stated = electrons.get(density.level_of_theory)
        before = len(problems.lines)
        problems.attempt(
            "density",
            lambda density=density, stated=stated: check_density(density, structure, electrons=stated),  # type: ignore[misc]
        )
        if len(problems.lines) > before:
            continue
        if density.kind == "total":
            electrons[density.level_of_theory] = density.n_electrons
        kept.append(density)
    return kept


def _match_cell(given: Structure, own: Structure) -> Structure:
    """The given structure if its cell is that of the grid; the grid's if it is the same crystal in another cell.

    Raises
    ------
    InputError
        If the density is of another crystal, or of this one in another volume.
    """
    from ingest.densities.checks import check_same_crystal

    check_same_crystal(given, own)
    if same_cell(given, own):
        return given
    from pymatgen.analysis.structure_matcher import StructureMatcher

    if StructureMatcher(ltol=0.01, stol=0.05, angle_tol=0.5, scale=False).fit(given, own):
        return own
    raise InputError(
        f"it was calculated for {own.formula} in {own.volume / len(own):.3f} Å^3 per atom, the structure is "
        f"{given.formula} in {given.volume / len(given):.3f} Å^3 per atom with other positions; "
        "give the structure that it was calculated for"
    )


def _match_relaxed(given: Structure, own: Structure) -> Structure:
    """The given structure, if the grid's is the same crystal relaxed in another calculation.

    Raises
    ------
    InputError
        If it is another crystal.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from ingest.densities.checks import check_same_crystal

    check_same_crystal(given, own)
    if StructureMatcher(primitive_cell=True, scale=True).fit(given, own):
        return given
    raise InputError(f"it was calculated for another crystal of {own.formula}, with atoms at other positions")
