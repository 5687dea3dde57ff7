"""Possible replacements of an element in a crystal, and their likeness.

In a crystal with oxidation states that sum to zero and one of the usual anions, an ion is replaced
by ions of the same charge. The likeness follows from the frequency of the replacement among known
compounds (pymatgen's table; G. Hautier et al., Inorganic Chemistry 50, 656 (2011)); the new crystal
is as neutral as its parent. In other crystals, such as alloys, an element is replaced by its
neighbours on Pettifor's chemical scale (D. G. Pettifor, Solid State Physics 31, 40 (1984)).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from ingest.substitution.radii import radius
from registry.formulas import composition

__all__ = ["IONIC", "METALLIC", "combinations", "oxidation_states", "replacements"]

IONIC = "ions of equal charge"
METALLIC = "neighbours on Pettifor's scale"

_ANIONS = frozenset(("N", "O", "F", "P", "S", "Cl", "As", "Se", "Br", "Te", "I"))
_EXCLUDED = frozenset(("He", "Ne", "Ar", "Kr", "Xe", "Rn", "Tc", "Pm", "Po", "At", "Fr", "Ra", "Ac", "Pa"))
"""Noble gases, and elements without a stable isotope except thorium and uranium."""

_MIN_PROBABILITY = 1e-3
"""Minimum conditional probability of the replacement of an ion, as in pymatgen's Substitutor."""

_MAX_DISTANCE = 4
"""Maximum distance on Pettifor's scale between an element of an alloy and its replacement."""


def replacements(formula: str) -> dict[str, list[tuple[str, float]]]:
    """Possible replacements of each element of a formula, with their likeness."""
    charges = oxidation_states(formula)
    if charges is not None:
        return {symbol: _ions(symbol, charge) for symbol, charge in charges.items()}
    return {symbol: _neighbours(symbol) for symbol in composition(formula)}


def combinations(
    choices: Mapping[str, Sequence[tuple[str, float]]], depth: int
) -> Iterator[tuple[tuple[tuple[str, str], ...], float]]:
    """Combinations of at most ``depth`` (1 or 2) replacements, with the product of their likenesses."""
    symbols = sorted(choices)
    for i, first in enumerate(symbols):
        for new, likeness in choices[first]:
            yield ((first, new),), likeness
            if depth < 2:
                continue
            for second in symbols[i + 1 :]:
                for other, second_likeness in choices[second]:
                    if other != new:
                        yield ((first, new), (second, other)), likeness * second_likeness


@cache
def oxidation_states(formula: str) -> dict[str, int] | None:
    """Integer oxidation states of the elements with sum zero; None for a metal."""
    from pymatgen.core.composition import Composition

    symbols = set(composition(formula))
    if not symbols & _ANIONS:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        guesses = Composition(formula).oxi_state_guesses()
    if not guesses or any(value != round(value) or value == 0 for value in guesses[0].values()):
        return None
    return {str(symbol): round(value) for symbol, value in guesses[0].items()}


@cache
def _substitution_table() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pymatgen.analysis.structure_prediction.substitution_probability import SubstitutionProbability

        return SubstitutionProbability()


@cache
def _ions(symbol: str, charge: int) -> list[tuple[str, float]]:
    """Ions of the same charge; likeness: probability of the replacement over that of the likeliest one."""
    from pymatgen.core.periodic_table import Species

    table = _substitution_table()
    own = Species(symbol, charge)
    if own not in table.species:
        return []
    likely = {}
    for species in table.species:
        other = str(species.element)
        if other != symbol and species.oxi_state == charge and other not in _EXCLUDED and radius(other):
            probability = table.cond_prob(species, own)
            if probability >= _MIN_PROBABILITY:
                likely[other] = float(probability)
    most = max(likely.values(), default=1.0)
    return sorted(((other, p / most) for other, p in likely.items()), key=lambda one: (-one[1], one[0]))


@cache
def _neighbours(symbol: str) -> list[tuple[str, float]]:
    """Neighbours on Pettifor's scale; likeness: 1 - distance / 5."""
    from pymatgen.core.periodic_table import Element

    own = float(Element(symbol).mendeleev_no)
    found = []
    for element in Element:
        other = element.symbol
        if element.Z > 92 or other in _EXCLUDED or not radius(other):
            continue
        distance = abs(float(element.mendeleev_no) - own)
        if 0 < distance <= _MAX_DISTANCE:
            found.append((other, 1.0 - distance / (_MAX_DISTANCE + 1)))
    return sorted(found, key=lambda one: (-one[1], one[0]))
