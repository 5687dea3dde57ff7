"""Tests of chemical formulas."""

from __future__ import annotations

import pytest

from registry.errors import InputError
from registry.formulas import chemical_system, composition, composition_key


@pytest.mark.parametrize(
    ("formula", "amounts"),
    [
        ("NaN", {"N": 1, "Na": 1}),  # sodium nitride, not "not a number"
        ("Cs2LiInBr6", {"Br": 6, "Cs": 2, "In": 1, "Li": 1}),
        ("Ca3(PO4)2", {"Ca": 3, "O": 8, "P": 2}),
        ("Co", {"Co": 1}),
        ("CO", {"C": 1, "O": 1}),
        ("Fe0.5 Ni0.5", {"Fe": 0.5, "Ni": 0.5}),
        ("((H2)O)2", {"H": 4, "O": 2}),
    ],
)
def test_amounts(formula: str, amounts: dict[str, float]) -> None:
    assert composition(formula) == amounts
    assert chemical_system(formula) == (sorted(amounts), "-".join(sorted(amounts)))


@pytest.mark.parametrize("formula", ["", "  ", "nacl", "Na(Cl", "NaCl)", "Xx2", "Fe0", "()", "(2H)", "Na-Cl", "1.5"])
def test_an_invalid_formula_is_refused(formula: str) -> None:
    with pytest.raises(InputError, match="formula"):
        composition(formula)


def test_all_formulas_of_a_composition_have_one_key() -> None:
    assert composition_key("H4O2") == composition_key("OH2") == composition_key("H2 O")
    assert composition_key("H2O2") != composition_key("H2O")
