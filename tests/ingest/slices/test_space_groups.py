"""Space groups and prototypes of textbook crystals."""

from __future__ import annotations

import numpy as np
import pytest
import spglib
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from ingest.slices.space_groups import F_CENTRED_CUBIC, space_group
from registry.errors import InputError

CUBIC = Lattice.cubic(5.0)


@pytest.mark.parametrize(
    ("name", "lattice", "species", "positions", "symbol", "prototype"),
    [
        ("Fm-3m", CUBIC, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], "Fm-3m (225)", "AB-cF8-225"),
        ("Fm-3m", CUBIC, ["Cu"], [[0, 0, 0]], "Fm-3m (225)", "A-cF4-225"),
        ("Fd-3m", CUBIC, ["Si"], [[0, 0, 0]], "Fd-3m (227)", "A-cF8-227"),
        ("F-43m", CUBIC, ["Zn", "S"], [[0, 0, 0], [0.25] * 3], "F-43m (216)", "AB-cF8-216"),
        ("Pm-3m", CUBIC, ["Cs", "Cl"], [[0, 0, 0], [0.5] * 3], "Pm-3m (221)", "AB-cP2-221"),
        ("Im-3m", CUBIC, ["Fe"], [[0, 0, 0]], "Im-3m (229)", "A-cI2-229"),
        ("P6_3/mmc", Lattice.hexagonal(3.2, 5.2), ["Mg"], [[1 / 3, 2 / 3, 0.25]], "P6_3/mmc (194)", "A-hP2-194"),
        ("R-3m", Lattice.hexagonal(3.76, 10.55), ["As"], [[0, 0, 0.227]], "R-3m (166)", "A-hR2-166"),
        ("Cmce", Lattice.orthorhombic(4.5, 7.7, 4.6), ["Ga"], [[0, 0.15, 0.08]], "Cmce (64)", "A-oS8-64"),
    ],
)
def test_textbook_prototypes(
    name: str, lattice: Lattice, species: list[str], positions: list[list[float]], symbol: str, prototype: str
) -> None:
    conventional = Structure.from_spacegroup(name, lattice, species, positions)
    for structure in (conventional, conventional.get_primitive_structure()):
        group = space_group(structure)
        assert (str(group), group.prototype) == (symbol, prototype)
        assert group.f_centred_cubic == symbol.startswith("F")


def test_space_group_does_not_depend_on_origin_and_orientation() -> None:
    structure = Structure.from_spacegroup("Fm-3m", CUBIC, ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])
    moved = structure.copy()
    moved.translate_sites(range(len(moved)), [0.13, 0.37, 0.71])
    turned = Structure(Lattice(moved.lattice.matrix[[2, 0, 1]]), moved.species, moved.frac_coords[:, [2, 0, 1]])
    assert space_group(moved) == space_group(turned) == space_group(structure)


@pytest.mark.filterwarnings("ignore:.*OLD_ERROR_HANDLING:DeprecationWarning")
def test_f_centred_cubic_groups_are_those_of_the_tables() -> None:
    types = [spglib.get_spacegroup_type(hall) for hall in range(1, 531)]
    tables = {t.number for t in types if t.number >= 195 and t.international_short.startswith("F")}
    assert tables == F_CENTRED_CUBIC


def test_overlapping_atoms_have_no_space_group() -> None:
    clash = Structure(CUBIC, ["Na", "Na"], [[0, 0, 0], np.full(3, 1e-5)])
    with pytest.raises(InputError, match="no space group of Na"):
        space_group(clash)
