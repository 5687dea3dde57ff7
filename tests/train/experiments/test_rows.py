"""Rows of a split: who is in, what is refused, and which rows stopping looks at."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.crystals import CrystalData
from registry.database import session_scope
from registry.errors import ArtifactError, IncompatibleInputError, NotFoundError, SplitError
from registry.files.grids import GridStore
from registry.image_recipes import find_recipe
from registry.properties import FREE_ATOMS
from registry.splits.creation import SplitRule, create_split
from tests.train.conftest import SmallRegistry
from train.experiments.rows import Rows, inner_stop, load_rows
from train.features.crystals import read_crystals
from train.features.labels import known_values
from train.modalities.density_grids import grids_of, load_densities
from train.modalities.features import DensityFeatures, FeatureConfig, ImageFeatures, TextFeatures
from train.modalities.image import load_images

IMAGE: dict[str, FeatureConfig] = {"image": ImageFeatures()}
TEXT: dict[str, FeatureConfig] = {"text": TextFeatures()}
DENSITY: dict[str, FeatureConfig] = {"density": DensityFeatures()}


def rows_of(keys: list[str]) -> Rows:
    n = len(keys)
    return Rows(
        revision_ids=np.arange(n),
        source_ids=tuple(f"test:{i}" for i in range(n)),
        formulas=("MgO",) * n,
        columns={},
        material_keys=tuple(keys),
        values=np.arange(n, dtype=float),
        folds=np.zeros(n, dtype=np.int64),
    )


def test_rows_keep_the_holdout_apart(small: SmallRegistry, crystal_of: Callable[..., CrystalData]) -> None:
    with Session(small.engine) as session:
        rows = load_rows(session, "small", target="k_vrh", inputs=IMAGE | TEXT)
    assert rows.unit == "GPa"
    assert rows.folds == [0, 1, 2]
    assert len(rows.cv) + len(rows.holdout) == 40
    assert not set(rows.cv.revision_ids) & set(rows.holdout.revision_ids)
    assert set(rows.holdout.folds) == {-1}
    assert sorted(set(rows.cv.columns["image"].values)) == [(("total", "GGA"), ("deformation", "GGA"))]
    for part in (rows.cv, rows.holdout):
        for name, value, words in zip(part.source_ids, part.values, part.columns["text"].values, strict=True):
            crystal = crystal_of(int(name.removeprefix("test:mp-")) - 1)
            assert value == crystal.properties[0].value
            assert words == crystal.descriptions[0].text


def test_the_preferred_level_of_theory_is_learnt(
    small: SmallRegistry, crystal_of: Callable[..., CrystalData], write: Callable[..., None]
) -> None:
    from registry.crystals import PropertyData

    crystal = crystal_of(0)
    both = (PropertyData("k_vrh", 111.0, "LDA"), *crystal.properties, PropertyData("k_vrh", 99.0, "GGA_GGA+U"))
    write(dataclasses.replace(crystal, source="two", source_id="mp-900", material_key="two", properties=both))
    with session_scope(small.engine) as session:
        create_split(session, "two", target="k_vrh", rule=SplitRule(n_folds=2))
        rows = load_rows(session, "two", target="k_vrh", inputs={})
        part = rows.cv if "two:mp-900" in rows.cv.source_ids else rows.holdout
        assert part.values[part.source_ids.index("two:mp-900")] == 99.0
        rid = int(part.revision_ids[part.source_ids.index("two:mp-900")])
        assert known_values(session, "k_vrh", [rid]) == {rid: 99.0}
        assert session.scalar(text("SELECT k_vrh FROM v_materials WHERE source = 'two'")) == 99.0


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE property_values SET suspect = true, suspect_reason = 'no' WHERE revision_id = 1", "1 crystals with a"),
        ("DELETE FROM property_values WHERE revision_id = 1", "no value of k_vrh"),
        ("DELETE FROM slice_images WHERE revision_id = 1", "no image under recipe 'metric'"),
        ("DELETE FROM descriptions WHERE revision_id = 1", "no text of level 'keywords'"),
    ],
)  # fmt: skip
def test_a_split_whose_rows_cannot_be_used_is_refused(small: SmallRegistry, statement: str, message: str) -> None:
    with small.engine.begin() as connection:
        connection.execute(text(statement))
    with Session(small.engine) as session, pytest.raises(SplitError, match=message):
        load_rows(session, "small", target="k_vrh", inputs=IMAGE | TEXT)


def test_missing_splits_and_images_are_named(small: SmallRegistry) -> None:
    with Session(small.engine) as session:
        with pytest.raises(NotFoundError, match="no split 'tiny' for k_vrh"):
            load_rows(session, "tiny", target="k_vrh", inputs={})
        with pytest.raises(NotFoundError, match="no images of recipe 'paper'"):
            load_rows(session, "small", target="k_vrh", inputs={"image": ImageFeatures(recipe="paper")})


def test_inputs_mark_missing_ones(small: SmallRegistry) -> None:
    with small.engine.begin() as connection:
        connection.execute(text("DELETE FROM slice_images WHERE revision_id = 3"))
    with Session(small.engine) as session:
        wanted = IMAGE | {"text": TextFeatures(text_level="all")}
        inputs = read_crystals(session, wanted, [5, 3])
        assert inputs.revision_ids.tolist() == [5, 3]
        assert [sha256 is None for sha256 in inputs.columns["image"].sha256] == [False, True]
        assert inputs.columns["text"].values == (None, None)
        assert len(read_crystals(session, IMAGE)) == 40
        with pytest.raises(NotFoundError, match="no crystal revision 999"):
            read_crystals(session, {}, [999])


def test_images_have_the_requested_order_and_exact_values(
    small: SmallRegistry, crystal_of: Callable[..., CrystalData]
) -> None:
    with Session(small.engine) as session:
        recipe_id = find_recipe(session, "metric").id
        ids = [small.revisions["mp-7"], small.revisions["mp-2"]]
        images = load_images(session, ids, recipe_id=recipe_id)
        np.testing.assert_array_equal(images, [crystal_of(6).slices[0].pixels, crystal_of(1).slices[0].pixels])
        with pytest.raises(NotFoundError, match="1 crystals have no image"):
            load_images(session, [ids[0], 999], recipe_id=recipe_id)
        session.execute(
            text("UPDATE slice_images SET height = height * 2, width = width / 2 WHERE revision_id = :id"),
            {"id": ids[1]},
        )
        with pytest.raises(IncompatibleInputError, match="differ in shape"):
            load_images(session, ids, recipe_id=recipe_id)


@given(st.lists(st.integers(0, 40), min_size=12, max_size=60), st.integers(0, 3), st.integers(0, 9))
def test_stop_rows_are_a_seeded_share_of_the_materials(numbers: list[int], fold: int, seed: int) -> None:
    keys = [f"mp-{number}" for number in numbers]
    if len(set(keys)) < 4:
        return
    stop = inner_stop(rows_of(keys), fold, seed=seed)
    chosen, rest = ({k for k, s in zip(keys, stop, strict=True) if s is which} for which in (np.True_, np.False_))
    assert not chosen & rest  # duplicates of a material stay together
    assert len(chosen) == -(-len(set(keys)) // 10)
    order = np.random.default_rng(seed).permutation(len(keys))
    again = inner_stop(rows_of(keys).take(order), fold, seed=seed)
    np.testing.assert_array_equal(again, stop[order])  # whatever the order of the rows


def test_too_few_rows_to_stop_on_are_refused() -> None:
    with pytest.raises(SplitError, match="leaves 2 materials"):
        inner_stop(rows_of(["a", "b", "a"]), 0, seed=0)


def test_densities_come_with_the_atoms_of_their_cell(small: SmallRegistry) -> None:
    grids = GridStore((small.settings.home.parent / "elsewhere").as_uri())
    with Session(small.engine) as session:
        crystals = read_crystals(session, DENSITY, [small.revisions["mp-2"], small.revisions["mp-1"]])
        files = crystals.columns["density"].values
        assert all(found is not None and found.level_of_theory == "GGA" for found in files)
        # A grid that the store lacks raises; no other density replaces it.
        with pytest.raises(ArtifactError, match="is not in"):
            next(load_densities(session, grids, crystals.revision_ids.tolist(), files))
        with pytest.raises(NotFoundError, match="has no total and deformation density with a structure"):
            next(load_densities(session, grids, crystals.revision_ids.tolist(), [None, None]))
        assert not read_crystals(session, {}, crystals.revision_ids).columns


def test_densities_are_read_in_order_with_their_own_cell(
    small: SmallRegistry, crystal_of: Callable[..., CrystalData], write: Callable[..., None]
) -> None:
    own = {"lattice": {"matrix": [[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]]}, "sites": ["those of the grid"]}
    crystal = dataclasses.replace(crystal_of(5), source="other")
    densities = tuple(dataclasses.replace(d, structure=own) for d in crystal.densities)
    write(dataclasses.replace(crystal, densities=densities))
    grids = GridStore(small.settings.grids_url)
    with Session(small.engine) as session:
        ids = session.scalars(text("SELECT revision_id FROM v_materials WHERE source = 'other'")).all()
        crystals = read_crystals(session, DENSITY, ids)
        (read,) = load_densities(session, grids, crystals.revision_ids.tolist(), crystals.columns["density"].values)
    assert read.structure == own
    assert list(read.values) == ["total", "deformation"]
    np.testing.assert_array_equal(read.values["total"], np.full((2, 2, 2), 0.1, np.float32))
    np.testing.assert_allclose(read.lattice, crystal.densities[0].lattice)


def test_a_deformation_of_free_atoms_goes_with_the_total_density_that_it_was_made_of(
    small: SmallRegistry, crystal_of: Callable[..., CrystalData], write: Callable[..., None]
) -> None:
    """As the Materials Project's crystals have them: total and deformation are of different levels of theory."""
    crystal = dataclasses.replace(crystal_of(6), source="mp", slices=())
    total, deformation = crystal.densities
    derived = dataclasses.replace(deformation, level_of_theory=f"GGA{FREE_ATOMS}")
    write(dataclasses.replace(crystal, densities=(total, derived)))
    other = dataclasses.replace(total, level_of_theory="r2SCAN")
    lone = dataclasses.replace(crystal, source="lone", densities=(other, derived))
    write(lone)
    with Session(small.engine) as session:
        ids = dict(session.execute(text("SELECT source, revision_id FROM v_materials")).all())
        (files,) = read_crystals(session, DENSITY, [ids["mp"]]).columns["density"].values
        assert files is not None
        assert files.level_of_theory == f"GGA{FREE_ATOMS}"
        (read,) = load_densities(session, GridStore(small.settings.grids_url), [ids["mp"]], [files])
        assert read_crystals(session, DENSITY, [ids["lone"]]).columns["density"].values == (None,)
    np.testing.assert_array_equal(read.values["total"], total.values)
    found = grids_of(dataclasses.replace(crystal, densities=(total, derived)), [f"GGA{FREE_ATOMS}"])
    assert found is not None
    np.testing.assert_array_equal(found.values["deformation"], derived.values)
    assert grids_of(dataclasses.replace(crystal, densities=(total, derived)), ["GGA"]) is None
    assert grids_of(lone) is None
