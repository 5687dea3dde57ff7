"""Parents for the tests: MgO (ionic) and TiC (metallic)."""

from __future__ import annotations

from ingest.substitution import Parent
from tests.ingest.conftest import rock_salt


def cubic_rock_salt(formula: str, elements: tuple[str, str], a: float) -> Parent:
    """A parent with the structure of NaCl in the conventional cell with lattice parameter ``a`` [Å]."""
    structure = rock_salt(a=a, primitive=False)
    structure.replace_species({"Na": elements[0], "Cl": elements[1]})
    return Parent(f"test:{formula}", formula, "AB-cF8-225", structure.as_dict(), 225, "Fm-3m")


MGO = cubic_rock_salt("MgO", ("Mg", "O"), 4.21)


TIC = cubic_rock_salt("TiC", ("Ti", "C"), 4.33)
