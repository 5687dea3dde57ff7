"""Modalities: what each finds in the registry, reads from prepared files, and refuses in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.checksums import text_sha256
from registry.crystals import CrystalData
from registry.errors import IncompatibleInputError, UnknownNameError
from registry.files.grids import GridStore
from registry.models import Crystal, CrystalRevision
from tests.train.conftest import RECIPE, SmallRegistry, small_crystal
from train.modalities import MODALITIES, Column, modality_order, restore_featurizer
from train.modalities.features import (
    CompositionFeatures,
    DensityFeatures,
    FeatureConfig,
    ImageFeatures,
    TextFeatures,
)

CONFIGS: dict[str, FeatureConfig] = {
    "image": ImageFeatures(),
    "text": TextFeatures(),
    "composition": CompositionFeatures(),
    "density": DensityFeatures(),
}
MISSING = {
    "image": "image under recipe 'metric'",
    "text": "text of level 'keywords'",
    "composition": "formula",
    "density": "total and deformation density",
}


@pytest.fixture
def find(small: SmallRegistry, write: Callable[..., None]) -> Callable[[str], Column]:
    """Finds the inputs of two crystals; the second has a formula only."""
    bare = replace(
        small_crystal(0), source_id="bare", content_sha256="0" * 64, densities=(), slices=(), descriptions=()
    )
    write(bare)
    with Session(small.engine) as session:
        revision = session.scalars(select(CrystalRevision.id).join(Crystal).where(Crystal.source_id == "bare")).one()

    def columns(name: str) -> Column:
        with Session(small.engine) as session:
            return MODALITIES[name].find(session, CONFIGS[name], [small.revisions["mp-2"], revision], ["NaO", "LiO"])

    return columns


@pytest.mark.parametrize("name", CONFIGS)
def test_inputs_are_found_by_their_checksum(name: str, find: Callable[[str], Column]) -> None:
    column = find(name)
    assert len(column) == 2
    first, second = column.sha256
    assert re.fullmatch("[0-9a-f]{64}", first or "")
    assert second == (text_sha256("LiO") if name == "composition" else None)
    swapped = column.take(np.array([1, 0]))
    assert (type(swapped), swapped.sha256) == (type(column), (second, first))
    assert MODALITIES[name].missing(CONFIGS[name]) == MISSING[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_what_a_model_reads_of_a_crystal_in_the_registry_is_checked(name: str, find: Callable[[str], Column]) -> None:
    modality, config, column = MODALITIES[name], CONFIGS[name], find(name)
    trained_on = modality.describe(config, column)
    modality.check("test:mp-2", column, 0, config, trained_on, model="m:k_vrh@1")
    if name == "composition":
        modality.check("test:bare", column, 1, config, trained_on, model="m:k_vrh@1")
        return
    with pytest.raises(IncompatibleInputError, match=r"^test:bare has no .*m:k_vrh@1 .*;") as error:
        modality.check("test:bare", column, 1, config, trained_on, model="m:k_vrh@1")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_prepared_crystal_gives_the_input_that_is_stored(
    name: str, small: SmallRegistry, find: Callable[[str], Column]
) -> None:
    modality, config, column = MODALITIES[name], CONFIGS[name], find(name)
    crystal = small_crystal(1)
    read = modality.read(crystal, config, modality.describe(config, column), model="m:k_vrh@1")
    grids = GridStore((small.settings.home / "grids").as_uri())
    if name == "density":
        assert {kind: grid.shape for kind, grid in read.values.items()} == {
            "total": (2, 2, 2),
            "deformation": (2, 2, 2),
        }
        return
    with Session(small.engine) as session:
        (stored,) = modality.load(session, column, [0], [small.revisions["mp-2"]], grids=grids)
    np.testing.assert_array_equal(read, stored)


BARE = replace(small_crystal(1), densities=(), slices=(), descriptions=())
OTHER_THEORY = small_crystal(1, level_of_theory="GGA+U")
OTHER_RECIPE = replace(
    small_crystal(1), slices=(replace(small_crystal(1).slices[0], recipe_parameters=RECIPE | {"planes": [[1, 1, 1]]}),)
)


@pytest.mark.parametrize(
    ("name", "crystal", "message"),
    [
        ("image", BARE, r"no slice of the recipe 'metric', which m:k_vrh@1 reads; give its"),
        ("image", OTHER_THEORY, r"slices of total density at GGA\+U and .*; m:k_vrh@1 was trained on .* at GGA"),
        ("image", OTHER_RECIPE, r"slice of another version of the recipe 'metric' than m:k_vrh@1 was trained on"),
        ("text", BARE, r"no text of level 'keywords', which m:k_vrh@1 reads; give its structure"),
        ("density", BARE, r"no total and deformation density of GGA, which m:k_vrh@1 reads; give it"),
        ("density", OTHER_THEORY, r"density of GGA \(it has densities of GGA\+U\), which m:k_vrh@1 reads"),
    ],
)
def test_a_prepared_crystal_without_the_input_is_refused(
    name: str, crystal: CrystalData, message: str, find: Callable[[str], Column]
) -> None:
    modality, config = MODALITIES[name], CONFIGS[name]
    trained_on = modality.describe(config, find(name))
    with pytest.raises(IncompatibleInputError, match=message) as error:
        modality.read(crystal, config, trained_on, model="m:k_vrh@1")
    assert str(error.value).startswith("mp-2 has ")
    assert "\n" not in str(error.value)


def test_featurizers_are_restored_by_their_description(find: Callable[[str], Column]) -> None:
    spec: dict[str, Any] = MODALITIES["composition"].spec(CONFIGS["composition"], find("composition"))
    assert restore_featurizer(spec).spec() == spec
    with pytest.raises(UnknownNameError, match="composition"):
        restore_featurizer(spec | {"modality": "compositions"})


def test_towers_of_a_stack_have_a_fixed_order() -> None:
    names = ["density", "composition", "text", "image"]
    assert sorted(names, key=modality_order) == ["image", "text", "composition", "density"]
