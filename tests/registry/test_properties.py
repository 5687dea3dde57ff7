from __future__ import annotations

import math

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from registry.errors import UnknownNameError
from registry.models import LevelOfTheory, Property
from registry.properties import (
    BUILTIN_PROPERTIES,
    LEVELS_OF_THEORY,
    PROPERTIES,
    TARGETS,
    property_named,
    suspect_reason,
    sync_properties,
    target_names,
)


# mp-1787, mp-568662, mp-1000, mp-612118 as published, and a crystal that would not resist at all
@pytest.mark.parametrize("value", [-181.7, -113.9, -1.5, -0.97, 0.0, 5000.0])
def test_impossible_bulk_moduli_are_suspect(value: float) -> None:
    reason = suspect_reason("k_vrh", value)
    assert reason is not None
    assert f"{value:g} GPa" in reason


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("k_vrh", 443.0),  # diamond
        ("k_vrh", 1.1),  # solid neon
        ("formation_energy_per_atom", -4.37),  # the lowest of the fcc fluorides
        ("formation_energy_per_atom", 0.0),
        ("efermi", -9.8),
        ("efermi", 12.2),
        ("band_gap", 0.0),
        ("band_gap", 14.2),  # LiF
        ("total_magnetization", 15.0),
        ("energy_above_hull", 0.0),
    ],
)
def test_values_of_real_crystals_are_plausible(name: str, value: float) -> None:
    assert suspect_reason(name, value) is None


def test_absurd_values_of_every_property_are_suspect() -> None:
    assert all(suspect_reason(name, 1e6) for name in PROPERTIES)


def test_values_below_a_lower_bound_are_suspect() -> None:
    bounds = {name: p.lower_bound for name, p in PROPERTIES.items() if p.lower_bound is not None}
    assert bounds == {"k_vrh": 0, "g_vrh": 0, "band_gap": 0, "energy_above_hull": -1e-3}
    # Else an interval that ends at the bound would not cover what the unbounded one does.
    assert all(suspect_reason(name, bound - 0.01) for name, bound in bounds.items())


def test_unknown_property_proposes_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'k_vrh'"):
        property_named("k_vhr")
    with pytest.raises(UnknownNameError, match="there are: formation_energy_per_atom"):
        suspect_reason("colour", 1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        suspect_reason("k_vrh", value)


def test_targets_are_properties_with_units() -> None:
    assert TARGETS == target_names() == ("formation_energy_per_atom", "efermi", "k_vrh")
    assert [PROPERTIES[name].unit for name in TARGETS] == ["eV/atom", "eV", "GPa"]


def test_sync_fills_the_tables_and_changes_nothing_the_second_time(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE properties SET description = 'old' WHERE name = 'k_vrh'"))
        sync_properties(connection)
    versions = text("SELECT name, xmin::text FROM properties UNION SELECT name, xmin::text FROM levels_of_theory")
    with engine.begin() as connection:
        before = set(connection.execute(versions))
        sync_properties(connection)
        assert set(connection.execute(versions)) == before
    with Session(engine) as session:
        stored = {row.name: row for row in session.scalars(select(Property))}
        levels = {row.name: row.preference for row in session.scalars(select(LevelOfTheory))}
    assert stored["k_vrh"].description == PROPERTIES["k_vrh"].description
    assert stored.keys() == BUILTIN_PROPERTIES.keys()
    assert {name: level.preference for name, level in LEVELS_OF_THEORY.items()} == levels


def test_sync_keeps_a_preference_that_somebody_set(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE levels_of_theory SET preference = 1 WHERE name = 'r2SCAN'"))
        sync_properties(connection)
        query = text("SELECT preference FROM levels_of_theory WHERE name = 'r2SCAN'")
        assert connection.scalar(query) == 1
