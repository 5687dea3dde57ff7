"""Search by properties: filters, known and predicted values, ranking."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from registry.errors import ConfigurationError
from registry.search.constraints import parse_constraint, parse_objective
from registry.settings import Settings
from tests.rock_salts import SUSPECT, UNKNOWN, bulk_modulus
from train.discovery.property_search import Elements, PropertyQuery, check_constraints, find_materials


def test_filters_of_elements() -> None:
    chosen = Elements(("Ti", "Zr"), ("O",), ("Pb",))
    assert chosen.allow(["O", "Ti"])
    assert not chosen.allow(["O", "Mg"])
    assert not chosen.allow(["Ti", "N"])
    assert not chosen.allow(["O", "Pb", "Ti"])
    with pytest.raises(ConfigurationError, match="not an element"):
        Elements(("TiO",))


def test_each_property_has_one_constraint_and_one_objective() -> None:
    stiff, soft = parse_constraint("k_vrh=100:"), parse_constraint("k_vrh=:20")
    low = parse_objective("efermi=min")
    assert check_constraints([stiff], [low, parse_objective("k_vrh=max")]) == ["k_vrh", "efermi"]
    with pytest.raises(ConfigurationError, match="two constraints are on k_vrh"):
        check_constraints([stiff, soft], [])
    with pytest.raises(ConfigurationError, match="two objectives are on efermi"):
        check_constraints([], [low, low])
    with pytest.raises(ConfigurationError, match="no constraint and no objective"):
        check_constraints([], [])


def test_known_values_are_ranked_and_unknown_ones_excluded(
    engine: Engine, settings: Settings, salts: list[str]
) -> None:
    found = find_materials(
        engine, settings, PropertyQuery([parse_constraint("k_vrh=100:")], k=len(salts)), predict=False
    )
    usable = [formula for formula in salts if formula not in (UNKNOWN, SUSPECT)]
    assert [found.n_candidates, len(found.found)] == [len(salts), len(usable)]
    met = [one.formula for one in found.found if one.meets]
    assert sorted(met) == sorted(formula for formula in usable if bulk_modulus(formula) >= 100)
    assert (found.n_met, found.models) == (len(met), {})
    assert found.notes == ["2 crystals that could meet the constraints have no k_vrh and are excluded"]
    with pytest.raises(ConfigurationError, match="k is 0"):
        PropertyQuery([parse_constraint("k_vrh=100:")], k=0)
