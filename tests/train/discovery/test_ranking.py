"""Ranking of proposed crystals by models that need no density."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from registry.errors import NotFoundError
from registry.search.constraints import parse_constraint, parse_objective
from registry.settings import Settings
from tests.small_registry import crystal
from train.discovery.ranking import COMPOSITION_ALONE, PropertyModels, rank


def test_crystals_are_ranked_by_their_compositions(engine: Engine, settings: Settings, baseline: None) -> None:
    models = PropertyModels(engine, settings, ["k_vrh", "formation_energy_per_atom"])
    assert {name: [one.model.name for one in ranked] for name, ranked in models.models.items()} == {
        name: [f"baseline-magpie:{name}@1"] for name in ("k_vrh", "formation_energy_per_atom")
    }
    assert not models.read_texts
    crystals = [crystal(i) for i in (0, 3, 7)]
    predicted = models.predict(crystals, modalities=COMPOSITION_ALONE)
    values = [one.values["k_vrh"] for one in predicted]
    assert all(not value.known and value.lower < value.value < value.upper for value in values)  # type: ignore[operator]
    ranked = rank(
        models,
        crystals,
        constraints=[parse_constraint("formation_energy_per_atom=:100")],
        objectives=[parse_objective("k_vrh=max")],
        describe=lambda i: pytest.fail("no model reads texts"),
        shortlist=3,
    )
    assert [one.predicted.values["k_vrh"].value for one in ranked] == sorted((v.value for v in values), reverse=True)
    assert [one.front for one in ranked] == [1, 2, 3]
    assert all(one.meets and not one.described and one.chance is not None for one in ranked)
    assert models.predict([], modalities=COMPOSITION_ALONE) == []


def test_a_property_without_a_model_of_the_composition_is_refused(
    engine: Engine, settings: Settings, baseline: None
) -> None:
    with pytest.raises(NotFoundError, match="no model of band_gap that reads the composition only"):
        PropertyModels(engine, settings, ["k_vrh", "band_gap"])
