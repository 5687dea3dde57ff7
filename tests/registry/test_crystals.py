"""Tests of crystals: writing, revisions, material keys and lookup."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from registry.crystals import (
    DensityData,
    DescriptionData,
    PropertyData,
    SliceData,
    material_key_of,
    resolve,
    write_crystal,
)
from registry.errors import AmbiguousIdError, InputError, NotFoundError, UnknownNameError
from registry.files.grids import GridStore
from registry.image_recipes import ensure_recipes, find_recipe, recipe_sha256
from registry.models import (
    Base,
    Crystal,
    CrystalRevision,
    Density,
    Description,
    ImageRecipe,
    IngestRun,
    LevelOfTheory,
    PropertyValue,
    SliceImage,
    SliceInput,
)

if TYPE_CHECKING:
    from tests.registry.conftest import AddCrystal, MakeCrystal


def _count(session: Session, model: type[Base]) -> int:
    return session.scalar(select(func.count()).select_from(model)) or 0


# The system column xmin changes when a row is written, also with equal values.
VERSIONS = text(
    "SELECT array_agg(s.xmin::text || s.ctid::text || d.xmin::text || d.ctid::text) FROM slice_images s, descriptions d"
)


def test_number_of_electrons_is_mean_times_volume() -> None:
    lattice = np.array([[0.0, 2, 2], [2, 0, 2], [2, 2, 0]])  # 16 Å^3
    density = DensityData("total", "GGA", np.full((3, 4, 5), 0.5, dtype=np.float32), lattice)
    assert density.volume == pytest.approx(16)
    assert density.n_electrons == pytest.approx(8)


def test_everything_is_written(session: Session, add_crystal: AddCrystal, grids: GridStore) -> None:
    written = add_crystal("mp-1", formula="TiO2", values={"k_vrh": 212.0, "efermi": 3.0})
    assert written.outcome == "created"
    revision = session.get_one(CrystalRevision, written.revision_id)
    assert (revision.n, revision.is_current) == (1, True)
    assert (revision.formula, revision.chemsys, revision.elements) == ("TiO2", "O-Ti", ["O", "Ti"])
    assert revision.crystal.material_key == "mp-1"
    values = {row.property: row.value for row in session.scalars(select(PropertyValue))}
    assert values == {"k_vrh": 212.0, "efermi": 3.0}
    density = session.get_one(Density, (written.revision_id, "total", "GGA"))
    assert density.grid_shape == [2, 3, 4]
    assert density.n_electrons == pytest.approx((0.25 + 11.5 / 100) * 64)
    grid, lattice = grids.get(density.uri, density.sha256)
    assert grid.shape == (2, 3, 4)
    np.testing.assert_array_equal(lattice, np.eye(3) * 4)
    image = session.scalars(select(SliceImage)).one()
    assert (image.channels, image.height, image.width) == (2, 4, 4)
    links = session.execute(select(SliceInput.channel, SliceInput.kind).order_by(SliceInput.channel)).all()
    assert [tuple(link) for link in links] == [(0, "total"), (1, "deformation")]
    assert session.scalars(select(Description.text)).one() == "a crystal"


def test_only_a_formula_is_enough(session: Session, add_crystal: AddCrystal) -> None:
    written = add_crystal("a", prototype=None, densities=False, slices=False, text=None, values={})
    revision = session.get_one(CrystalRevision, written.revision_id)
    assert (revision.structure, revision.space_group_number) == (None, None)
    assert revision.elements == ["Cl", "Na"]


def test_pixels_and_their_statistics(
    session: Session, make_crystal: MakeCrystal, run: IngestRun, grids: GridStore
) -> None:
    pixels = np.random.default_rng(1).normal(size=(3, 5, 7)).astype(np.float32)
    data = replace(make_crystal("a"), slices=(SliceData("metric", {"x": 1}, None, pixels),))
    write_crystal(session, data, run_id=run.id, grids=grids)
    session.expire_all()
    image = session.scalars(select(SliceImage)).one()
    np.testing.assert_array_equal(image.pixels.reshape(3, 5, 7), pixels)
    assert image.sha256 == hashlib.sha256(pixels.tobytes()).hexdigest()
    for name in ("min", "max", "mean", "std"):
        wanted = getattr(pixels, name)(axis=(1, 2), **({"dtype": np.float64} if name in ("mean", "std") else {}))
        np.testing.assert_allclose(getattr(image, f"pixel_{name}"), wanted, rtol=1e-6)


def test_equal_data_change_nothing(session: Session, add_crystal: AddCrystal) -> None:
    first = add_crystal("a")
    before = session.scalar(VERSIONS)
    second = add_crystal("a")
    assert second == replace(first, outcome="unchanged")
    assert session.scalar(VERSIONS) == before
    assert _count(session, CrystalRevision) == 1


def test_changed_content_becomes_a_revision_and_the_old_one_stays(session: Session, add_crystal: AddCrystal) -> None:
    first = add_crystal("a", values={"k_vrh": 100.0})
    second = add_crystal("a", values={"k_vrh": 101.0})
    assert second.outcome == "updated"
    rows = session.execute(select(CrystalRevision.n, CrystalRevision.is_current).order_by(CrystalRevision.n)).all()
    assert [tuple(row) for row in rows] == [(1, False), (2, True)]
    assert session.get_one(PropertyValue, (first.revision_id, "k_vrh", "GGA")).value == 100.0
    assert session.get_one(PropertyValue, (second.revision_id, "k_vrh", "GGA")).value == 101.0
    assert _count(session, Crystal) == 1
    assert resolve(session, "a").revision_id == second.revision_id
    # The return to the former content is a new revision, too.
    assert add_crystal("a", values={"k_vrh": 100.0}).outcome == "updated"
    assert _count(session, CrystalRevision) == 3


def test_new_recipes_and_texts_are_added_to_the_revision(
    session: Session, make_crystal: MakeCrystal, add_crystal: AddCrystal, run: IngestRun, grids: GridStore
) -> None:
    first = add_crystal("a")
    data = make_crystal("a")
    more = replace(
        data,
        slices=(*data.slices, replace(data.slices[0], recipe_name="paper", recipe_parameters={"px": 186})),
        descriptions=(*data.descriptions, DescriptionData("all", "a longer text", "test")),
    )
    assert write_crystal(session, more, run_id=run.id, grids=grids) == replace(first, outcome="updated")
    assert (_count(session, SliceImage), _count(session, SliceInput), _count(session, Description)) == (2, 4, 2)
    assert write_crystal(session, more, run_id=run.id, grids=grids).outcome == "unchanged"
    # Fewer recipes than before remove nothing.
    assert write_crystal(session, data, run_id=run.id, grids=grids).outcome == "unchanged"
    assert _count(session, SliceImage) == 2


def test_changed_pixels_and_texts_replace_the_old_ones(session: Session, add_crystal: AddCrystal) -> None:
    first = add_crystal("a")
    second = add_crystal("a", pixel_max=2.0, text="another text")
    assert second == replace(first, outcome="updated")
    session.expire_all()
    assert session.scalars(select(SliceImage)).one().pixel_max == [2.0, 0.0]
    assert _count(session, SliceInput) == 2
    assert session.scalars(select(Description.text)).one() == "another text"


def test_implausible_values_are_kept_and_marked(session: Session, add_crystal: AddCrystal) -> None:
    add_crystal("mp-1787", values={"k_vrh": -181.7, "efermi": 3.0})
    rows = {row.property: row for row in session.scalars(select(PropertyValue))}
    assert rows["k_vrh"].value == -181.7
    assert rows["k_vrh"].suspect
    assert "outside its plausible range" in (rows["k_vrh"].suspect_reason or "")
    assert not rows["efermi"].suspect


def test_unknown_levels_of_theory_are_added(session: Session, add_crystal: AddCrystal) -> None:
    add_crystal("a", level_of_theory="RPA@PBE")
    assert session.get_one(LevelOfTheory, "RPA@PBE").preference == 1000
    add_crystal("b", level_of_theory="RPA@PBE")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"formula": "Xx"}, InputError, "contains 'Xx', which is not an element"),
        ({"properties": (PropertyData("k_vrh", float("nan"), "GGA"),)}, InputError, "k_vrh of a is nan"),
        ({"properties": (PropertyData("colour", 1.0, "GGA"),)}, UnknownNameError, "no property 'colour'"),
        ({"slices": (SliceData("m", {}, None, np.ones((4, 4), np.float32)),)}, InputError, "shape"),
        ({"slices": (SliceData("m", {}, None, np.full((1, 2, 2), np.nan, np.float32)),)}, InputError, "finite"),
        (
            {"slices": (SliceData("m", {}, None, np.ones((2, 2, 2), np.float32), (("total", "GGA"),)),)},
            InputError,
            "one density per channel",
        ),
    ],
)
def test_bad_values_are_refused_before_anything_is_written(
    session: Session,
    make_crystal: MakeCrystal,
    run: IngestRun,
    grids: GridStore,
    tmp_path: Path,
    change: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        write_crystal(session, replace(make_crystal("a"), **change), run_id=run.id, grids=grids)
    assert _count(session, Crystal) == 0
    assert not (tmp_path / "grids").exists()


def test_a_savepoint_undoes_a_crystal_and_no_other(
    session: Session, add_crystal: AddCrystal, make_crystal: MakeCrystal, run: IngestRun, grids: GridStore
) -> None:
    add_crystal("good")
    broken = replace(make_crystal("broken"), space_group_number=231)
    with pytest.raises(Exception, match="space_group_number"), session.begin_nested():
        write_crystal(session, broken, run_id=run.id, grids=grids)
    assert session.scalars(select(Crystal.source_id)).all() == ["good"]


def test_external_ids_are_the_material_key(make_crystal: MakeCrystal) -> None:
    assert material_key_of("mp-149", make_crystal("mp-149")) == "mp-149"
    assert material_key_of("mvc-12", make_crystal("mvc-12")) == "mvc-12"
    assert material_key_of("mp-x", make_crystal("mp-x")).startswith("fingerprint-")
    assert material_key_of("mp-149", make_crystal("mp-149", material_key="mine")) == "mine"


def test_fingerprint_depends_on_the_material_and_not_on_the_spelling(make_crystal: MakeCrystal) -> None:
    salt = material_key_of("a", make_crystal("a", formula="NaCl"))
    assert material_key_of("b", make_crystal("b", formula="ClNa", source="other", values={})) == salt
    assert material_key_of("b", make_crystal("b", formula="KCl")) != salt
    assert material_key_of("b", make_crystal("b", formula="NaCl", prototype="AB-cP2-221")) != salt


@pytest.mark.parametrize("order", [("mp-22862", "mine"), ("mine", "mp-22862")])
def test_a_material_under_an_external_id_and_without_one_is_one_material(
    session: Session, add_crystal: AddCrystal, order: tuple[str, str]
) -> None:
    for ident in order:
        add_crystal(ident, source=f"source of {ident}")
    add_crystal("other", formula="KCl")
    keys = session.scalars(select(Crystal.material_key).order_by(Crystal.id)).all()
    assert keys[0] == keys[1] != keys[2]


def test_two_external_ids_stay_two_materials(session: Session, add_crystal: AddCrystal) -> None:
    add_crystal("mp-1")
    add_crystal("mp-2")
    assert session.scalars(select(Crystal.material_key).order_by(Crystal.id)).all() == ["mp-1", "mp-2"]


def test_resolve(session: Session, add_crystal: AddCrystal) -> None:
    add_crystal("mp-1022", source="one", formula="MgO")
    add_crystal("mp-149", source="one", formula="Si")
    written = add_crystal("mp-149", source="two", formula="Si")
    found = resolve(session, "mp-1022")
    assert (found.source, found.source_id, found.formula) == ("one", "mp-1022", "MgO")
    assert resolve(session, "two:mp-149").revision_id == written.revision_id
    with pytest.raises(AmbiguousIdError, match="'one:mp-149' or 'two:mp-149'"):
        resolve(session, "mp-149")


@pytest.mark.parametrize(
    ("ident", "hint"),
    [
        ("mp-1023", "did you mean mp-1022"),
        ("one:mp-1023", "did you mean mp-1022"),
        ("MgO", "crystals of that formula: mp-1022"),
        ("quartz", "v_materials lists them"),
        ("'; DROP TABLE crystals; --", "v_materials lists them"),
    ],
)
def test_unknown_ids_get_a_hint(session: Session, add_crystal: AddCrystal, ident: str, hint: str) -> None:
    add_crystal("mp-1022", source="one", formula="MgO")
    with pytest.raises(NotFoundError, match=hint):
        resolve(session, ident)


def test_an_empty_registry_gives_the_command_to_fill_it(session: Session) -> None:
    with pytest.raises(NotFoundError, match="`ecdreg ingest` adds crystals"):
        resolve(session, "mp-1")
    with pytest.raises(NotFoundError, match="no images of recipe 'metric'; the registry has no images"):
        find_recipe(session, "metric")


def recipe_id(session: Session, parameters: dict[str, object]) -> int:
    sha256 = recipe_sha256(parameters)
    return ensure_recipes(session, {sha256: ("metric", parameters, "e/Å^3")})[sha256]


def test_recipe_versions_are_their_parameters(session: Session, add_crystal: AddCrystal) -> None:
    assert recipe_sha256({"a": 1, "b": [1, 2]}) == recipe_sha256({"b": (1, 2), "a": 1})
    first = recipe_id(session, {"window": 12.0})
    assert recipe_id(session, {"window": 12.0}) == first
    second = recipe_id(session, {"window": 13.0})
    assert second != first
    assert session.get_one(ImageRecipe, first).unit == "e/Å^3"
    add_crystal("a", recipe="metric", parameters={"window": 12.0})
    assert find_recipe(session, "metric").id == first, "the newest that has images"
    add_crystal("a", recipe="metric", parameters={"window": 13.0})
    assert find_recipe(session, "metric").id == second
    with pytest.raises(NotFoundError, match="there are: metric"):
        find_recipe(session, "metrik")
