"""Image recipes: parameters, rendering, and independence of the stored cell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from pymatgen.core.lattice import Lattice
from pymatgen.core.structure import Structure

from ingest.densities.regridding import regrid
from ingest.preparation.options import IngestOptions
from ingest.slices.recipes import RECIPES, FourierRecipe, MetricRecipe, PaperRecipe
from ingest.slices.symmetry import conventional_frame, primitive_in_stored
from registry.crystals import DensityData
from registry.errors import ConfigurationError, InputError, UnknownNameError
from tests.ingest.conftest import MakeDensity

FCC = (np.ones((3, 3)) - np.eye(3)) / 2
CHARGES = {
    "Na": (1.0, 0.5), "Cl": (7.0, 0.55), "Zn": (12.0, 0.5), "S": (6.0, 0.6), "Ti": (4.0, 0.5), "O": (6.0, 0.55),
    "Ca": (2.0, 0.6), "F": (7.0, 0.5), "Cu": (11.0, 0.5), "Mn": (7.0, 0.55), "Al": (3.0, 0.6), "Fe": (8.0, 0.5),
}  # fmt: skip


def conventional(a: float, **sites: list[list[float]]) -> Structure:
    """An F-centred cubic cell from the positions of its primitive part."""
    elements, positions = [], []
    for element, places in sites.items():
        for place in places:
            for shift in np.vstack([np.zeros(3), FCC]):
                elements.append(element)
                positions.append(np.array(place) + shift)
    return Structure(Lattice.cubic(a), elements, positions)


def primitive(structure: Structure) -> Structure:
    """The 60-degree cell of a conventional one, with the same origin."""
    lattice = FCC @ structure.lattice.matrix
    first = range(0, len(structure), 4)
    return Structure(
        lattice, [structure[i].specie for i in first], [structure[i].coords for i in first], coords_are_cartesian=True
    )


O, Q, H, T = [0.0, 0.0, 0.0], [0.25, 0.25, 0.25], [0.5, 0.5, 0.5], [0.75, 0.75, 0.75]  # noqa: E741
ROCK_SALT = conventional(5.6, Na=[O], Cl=[H])
ZINC_BLENDE = conventional(5.4, Zn=[O], S=[Q])
FLUORITE = conventional(5.46, Ca=[O], F=[Q, T])
HEUSLER = conventional(5.95, Mn=[O], Al=[H], Cu=[Q, T])
HALF_HEUSLER = conventional(5.9, Mn=[O], Al=[H], Cu=[Q])
RUTILE = Structure(
    Lattice.tetragonal(4.59, 2.96),
    ["Ti"] * 2 + ["O"] * 4,
    [O, H, [0.305, 0.305, 0], [0.695, 0.695, 0], [0.195, 0.805, 0.5], [0.805, 0.195, 0.5]],
)
WURTZITE = Structure(
    Lattice.hexagonal(3.8, 6.23),
    ["Zn", "Zn", "S", "S"],
    [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, 0.375], [2 / 3, 1 / 3, 0.875]],
)
PYRITE = Structure(  # point group m-3: no fourfold axis, so (1-10) and (110) differ
    Lattice.cubic(5.42),
    ["Fe"] * 4 + ["S"] * 8,
    [O, *FCC]
    + [
        [s * u + a, s * v + b, s * w + c]
        for s in (1, -1)
        for (u, v, w), (a, b, c) in [
            ((0.385, 0.385, 0.385), (0, 0, 0)),
            ((-0.385, -0.385, 0.385), (0.5 * s, 0, 0.5 * s)),
            ((-0.385, 0.385, -0.385), (0, 0.5 * s, 0.5 * s)),
            ((0.385, -0.385, -0.385), (0.5 * s, 0.5 * s, 0)),
        ]
    ],
)  # fmt: skip
TRICLINIC = Structure(Lattice.from_parameters(4, 5, 6, 80, 85, 75), ["Na", "Cl", "O"], [O, [0.4, 0.45, 0.55], Q])
CRYSTALS = {
    "rock salt": ROCK_SALT, "zinc blende": ZINC_BLENDE, "fluorite": FLUORITE, "Heusler": HEUSLER,
    "half-Heusler": HALF_HEUSLER, "rutile": RUTILE, "wurtzite": WURTZITE, "pyrite": PYRITE, "triclinic": TRICLINIC,
}  # fmt: skip

# Three planes, one of them off the centre and one general, in a small window: a hard picture.
PROBE = MetricRecipe(
    "probe",
    planes=(((1, -1, 0), 0.0), ((1, 1, 1), 0.25), ((2, 1, 0), 0.1)),
    density_kinds=("total",),
    window=(8.0, 8.0),
    pixels=(40, 40),
)


def picture(make: MakeDensity, structure: Structure, recipe: MetricRecipe = PROBE) -> NDArray[np.float32]:
    shape = tuple(2 * round(length / 0.36) for length in structure.lattice.abc)
    return recipe.render({"total": make(structure, shape, CHARGES)}, structure)


def other_cells(structure: Structure) -> Iterator[tuple[str, Structure]]:
    """The same crystal, stored in other ways."""
    rng = np.random.default_rng(7)
    matrix, species, positions = structure.lattice.matrix, structure.species, structure.frac_coords
    yield "another origin", Structure(matrix, species, positions + rng.random(3))
    yield "moved by lattice vectors", Structure(matrix, species, positions + rng.integers(-3, 3, positions.shape))
    yield "b, c, a", Structure(matrix[[1, 2, 0]], species, positions[:, [1, 2, 0]])
    yield "b, a, c", Structure(matrix[[1, 0, 2]], species, positions[:, [1, 0, 2]])
    order = rng.permutation(len(structure))
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    yield "turned, atoms in another order", Structure(matrix @ turn, [species[i] for i in order], positions[order])
    yield "mirror image", Structure(matrix, species, -positions)
    for name, cell in (("sheared", [[1, 1, 0], [0, 1, 0], [0, 0, 1]]), ("doubled", [[1, 0, 0], [0, 2, 0], [0, 0, 1]])):
        multiple = structure.copy()
        multiple.make_supercell(cell)
        yield name, multiple


def test_catalog() -> None:
    names = ["metric", "metric-111", "metric-planes", "metric-views", "paper", "paper-deformation", "paper-total"]
    assert RECIPES.names() == sorted([*names, *(f"{name}-fourier" for name in names)])
    assert set(IngestOptions().recipes) <= set(names)
    assert all(RECIPES[name].name == name for name in RECIPES)
    with pytest.raises(UnknownNameError, match="did you mean 'metric'"):
        RECIPES["metrik"]
    assert RECIPES["metric"].channel_kinds == ("total", "deformation")
    assert RECIPES["metric"].unit == "e/Å^3"
    assert RECIPES["metric-fourier"].unit is None
    assert RECIPES["paper"].kinds == ("spin",)
    assert PROBE.channel_kinds == ("total",) * 3


def test_parameters_contain_everything_except_the_name() -> None:
    parameters = [json.dumps(RECIPES[name].parameters(), sort_keys=True) for name in RECIPES]
    assert len(set(parameters)) == len(parameters)
    changes = {
        "planes": (((1, 0, 0), 0.5),), "density_kinds": ("spin",), "window": (12.0, 13.0), "pixels": (8, 9),
        "spline_order": 1, "symprec": 0.1, "version": 2,
        "views": ((0.0, 0.0, 0.0), (90.0, 0.0, 0.0)), "kind": "total", "points": 30, "start": 1, "stop": 9,
        "repeats": 3, "of": RECIPES["paper"],
    }  # fmt: skip
    for recipe in (MetricRecipe("a"), PaperRecipe("a"), FourierRecipe("a", of=RECIPES["metric"])):
        assert replace(recipe, name="b").parameters() == recipe.parameters()
        for field in fields(recipe):
            if field.name != "name":
                changed = replace(recipe, **{field.name: changes[field.name]})
                assert changed.parameters() != recipe.parameters(), field.name


@pytest.mark.parametrize(
    "wrong",
    [
        {"planes": ()}, {"planes": (((0, 0, 0), 0.0),)}, {"density_kinds": ("potential",)}, {"density_kinds": ()},
        {"density_kinds": ("total", "total")}, {"window": (0.0, 1.0)},
        {"views": ()}, {"views": ((0.0, 0.0, 0.0),) * 2}, {"pixels": (0, 4)}, {"spline_order": 6},
    ],
)  # fmt: skip
def test_invalid_recipes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="recipe wrong"):
        MetricRecipe("wrong", **wrong)


@pytest.mark.parametrize("kind", ["total", "spin", "deformation"])
def test_paper_recipe_is_the_published_formula_on_pyrhos_grid(gaussian_density: MakeDensity, kind: str) -> None:
    cell = primitive(ZINC_BLENDE)
    density = gaussian_density(cell, (32, 32, 32), CHARGES, kind=kind)
    name = "paper" if kind == "spin" else f"paper-{kind}"
    found = RECIPES[name].render({kind: density}, cell)
    rho = regrid(density).values
    i, j = np.meshgrid(np.arange(25, 211), np.arange(25, 211), indexing="ij")
    expected = rho[i % 60, j % 60, (480 - i - j) % 60].astype(np.float32)
    assert found.shape == (1, 186, 186)
    assert found.dtype == np.float32
    assert np.array_equal(found[0], expected)


def test_paper_recipe_on_a_60_grid_is_exact() -> None:
    rho = np.random.default_rng(5).normal(size=(60, 60, 60)).astype(np.float32)
    cell = primitive(ROCK_SALT)
    found = RECIPES["paper"].render({"spin": DensityData("spin", "GGA", rho, cell.lattice.matrix)}, cell)
    i, j = np.meshgrid(np.arange(25, 211), np.arange(25, 211), indexing="ij")
    assert np.array_equal(found[0], rho[i % 60, j % 60, (480 - i - j) % 60])


def test_paper_recipe_uses_the_primitive_cell_of_a_conventional_one(gaussian_density: MakeDensity) -> None:
    recipe = replace(RECIPES["paper-total"], points=20, start=3, stop=43)
    cell = primitive(ROCK_SALT)
    expected = recipe.render({"total": gaussian_density(cell, (20, 20, 20), CHARGES)}, cell)
    found = recipe.render({"total": gaussian_density(ROCK_SALT, (40, 40, 40), CHARGES)}, ROCK_SALT)
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("name", CRYSTALS)
def test_image_does_not_depend_on_the_stored_cell(gaussian_density: MakeDensity, name: str) -> None:
    expected = picture(gaussian_density, CRYSTALS[name])
    assert expected.std(axis=(1, 2)).min() > 0.01 * expected.max()
    for way, structure in other_cells(CRYSTALS[name]):
        found = picture(gaussian_density, structure)
        # What is left is the spline's error on a grid that lies differently.
        assert abs(found - expected).max() < 4e-3 * expected.max(), way


@pytest.mark.parametrize("name", ["rock salt", "zinc blende", "fluorite", "Heusler", "half-Heusler"])
def test_primitive_cell_gives_the_image_of_the_conventional_one(gaussian_density: MakeDensity, name: str) -> None:
    expected = picture(gaussian_density, CRYSTALS[name])
    found = picture(gaussian_density, primitive(CRYSTALS[name]))
    np.testing.assert_allclose(found, expected, atol=4e-3 * expected.max())


def test_moving_the_origin_by_grid_points_changes_nothing(gaussian_density: MakeDensity) -> None:
    # The very same numbers, rolled: no interpolation stands between.
    density = gaussian_density(HALF_HEUSLER, (32, 32, 32), CHARGES)
    expected = PROBE.render({"total": density}, HALF_HEUSLER)
    moved = Structure(HALF_HEUSLER.lattice, HALF_HEUSLER.species, HALF_HEUSLER.frac_coords + np.array([5, -3, 11]) / 32)
    rolled = replace(density, values=np.roll(density.values, (5, -3, 11), axis=(0, 1, 2)))
    np.testing.assert_allclose(PROBE.render({"total": rolled}, moved), expected, atol=1e-5)


def test_permuting_the_axes_with_the_grid_changes_nothing(gaussian_density: MakeDensity) -> None:
    density = gaussian_density(RUTILE, (26, 26, 18), CHARGES)
    expected = PROBE.render({"total": density}, RUTILE)
    order = [2, 0, 1]
    cell = Structure(RUTILE.lattice.matrix[order], RUTILE.species, RUTILE.frac_coords[:, order])
    turned = replace(density, values=np.transpose(density.values, order), lattice=cell.lattice.matrix)
    np.testing.assert_allclose(PROBE.render({"total": turned}, cell), expected, atol=1e-5)


def test_rock_salt_with_either_species_at_the_origin(gaussian_density: MakeDensity) -> None:
    swapped = primitive(conventional(5.6, Na=[H], Cl=[O]))
    expected = picture(gaussian_density, primitive(ROCK_SALT))
    np.testing.assert_allclose(picture(gaussian_density, swapped), expected, atol=1e-3 * expected.max())


@pytest.mark.parametrize(
    ("structure", "element"), [(ROCK_SALT, "Cl"), (FLUORITE, "Ca"), (HEUSLER, "Mn"), (ZINC_BLENDE, "Zn")]
)
def test_centre_is_the_heaviest_of_the_most_symmetric_sites(structure: Structure, element: str) -> None:
    # Cu, at the tetrahedral sites of the Heusler phase, is heavier than Mn, but less symmetric.
    origin = conventional_frame(structure).origin
    nearest = min(structure, key=lambda site: site.distance_and_image_from_frac_coords(origin / structure.lattice.a)[0])
    assert nearest.specie.symbol == element


def test_lengths_in_the_image_are_those_of_the_crystal(gaussian_density: MakeDensity) -> None:
    recipe = MetricRecipe("probe", density_kinds=("total",), window=(12.0, 9.0), pixels=(180, 160))
    a = 5.6
    found = picture(gaussian_density, primitive(ROCK_SALT), recipe)[0]
    x = (np.arange(160) + 0.5) * 12 / 160 - 6
    y = 4.5 - (np.arange(180) + 0.5) * 9 / 180

    def peak(at: tuple[float, float]) -> NDArray[np.float64]:
        near = (abs(x[None, :] - at[0]) < 0.7) & (abs(y[:, None] - at[1]) < 0.7)
        weight = np.where(near, found, 0.0)
        return np.array([(weight * x[None, :]).sum(), (weight * y[:, None]).sum()]) / weight.sum()

    centre, right, above = peak((0, 0)), peak((a / np.sqrt(2), 0)), peak((0, a / 2))
    np.testing.assert_allclose(centre, 0.0, atol=0.01)
    # Chlorine to chlorine along [110]; chlorine to sodium along [001].
    assert np.linalg.norm(right - centre) == pytest.approx(a / np.sqrt(2), abs=0.02)
    assert np.linalg.norm(above - centre) == pytest.approx(a / 2, abs=0.05)


def test_every_sublattice_is_in_the_default_image(gaussian_density: MakeDensity) -> None:
    cell = primitive(HEUSLER)
    recipe = replace(RECIPES["metric"], density_kinds=("total",))
    setting = conventional_frame(cell)
    for element in ("Mn", "Al", "Cu"):
        only = {**dict.fromkeys(CHARGES, (0.0, 0.5)), element: (1.0, 0.4)}
        seen = recipe.render({"total": gaussian_density(cell, (24, 24, 24), only)}, cell)
        full = 1.0 / (2 * np.pi * 0.4**2) ** 1.5
        assert seen.max() == pytest.approx(full, rel=0.03), element
    assert abs(np.linalg.det(setting.axes)) == pytest.approx(5.95**3)


def test_offsets_are_in_units_of_the_plane_spacing(gaussian_density: MakeDensity) -> None:
    # (111) planes of rock salt through the primitive cell: Cl, nothing, Na, nothing.
    planes = tuple(((1, 1, 1), offset) for offset in (0.0, 0.5, 1.0))
    recipe = replace(PROBE, planes=planes, density_kinds=("total", "deformation"))
    cell = primitive(ROCK_SALT)
    density = gaussian_density(cell, (24, 24, 24), CHARGES)
    found = recipe.render({"total": density, "deformation": replace(density, values=-density.values)}, cell)
    assert recipe.channel_kinds == ("total", "deformation") * 3
    np.testing.assert_array_equal(found[1::2], -found[::2])
    assert found[0].max() == pytest.approx(7 / (2 * np.pi * 0.55**2) ** 1.5, rel=0.02)
    assert found[2].max() == pytest.approx(1 / (2 * np.pi * 0.5**2) ** 1.5, rel=0.05)
    assert found[4].max() == pytest.approx(found[0].max(), rel=0.02)  # the next layer, moved sideways


def test_values_keep_their_scale(gaussian_density: MakeDensity) -> None:
    cell = primitive(ROCK_SALT)
    density = gaussian_density(cell, (24, 24, 24), CHARGES)
    expected = PROBE.render({"total": density}, cell)
    found = PROBE.render({"total": replace(density, values=3 * density.values)}, cell)
    np.testing.assert_allclose(found, 3 * expected, rtol=1e-5, atol=1e-6)


def test_fourier_variant_transforms_the_image(gaussian_density: MakeDensity) -> None:
    cell = primitive(ROCK_SALT)
    density = gaussian_density(cell, (24, 24, 24), CHARGES)
    densities = {"total": density, "deformation": replace(density, kind="deformation")}
    plain = RECIPES["metric"].render(densities, cell)
    found = RECIPES["metric-fourier"].render(densities, cell)
    assert found.shape == plain.shape == (2, 160, 160)
    assert found[0, 80, 80] == pytest.approx(np.log1p(plain[0].sum(dtype=np.float64)), rel=1e-5)


def test_missing_kind_is_reported(gaussian_density: MakeDensity) -> None:
    cell = primitive(ROCK_SALT)
    density = gaussian_density(cell, (24, 24, 24), CHARGES)
    with pytest.raises(InputError, match="recipe metric needs a deformation density; there is: total"):
        RECIPES["metric"].render({"total": density}, cell)
    with pytest.raises(InputError, match="recipe paper needs a spin density; there is: none"):
        RECIPES["paper"].render({}, cell)


@pytest.mark.parametrize("name", [name for name in RECIPES.names() if not name.endswith("-fourier")])
def test_no_kind_replaces_another(gaussian_density: MakeDensity, name: str) -> None:
    """The spin density is not a deformation density: a missing kind is an error, not replaced by another one."""
    cell = primitive(ROCK_SALT)
    total = gaussian_density(cell, (20, 20, 20), CHARGES)
    factors = {"total": 1.0, "spin": 0.5, "deformation": -0.25}
    densities = {kind: replace(total, kind=kind, values=factor * total.values) for kind, factor in factors.items()}
    recipe = RECIPES[name]
    alike = recipe.render({kind: replace(total, kind=kind) for kind in factors}, cell)
    factor_of = np.array([factors[kind] for kind in recipe.channel_kinds])
    assert abs(alike).max(axis=(1, 2)).min() > 0.1
    np.testing.assert_allclose(recipe.render(densities, cell), factor_of[:, None, None] * alike, rtol=1e-4, atol=1e-5)
    for kind in recipe.kinds:
        others = {other: density for other, density in densities.items() if other != kind}
        with pytest.raises(InputError, match=f"needs a {kind} density; there is: {', '.join(sorted(others))}"):
            recipe.render(others, cell)


def test_density_of_another_cell_is_refused(gaussian_density: MakeDensity) -> None:
    density = gaussian_density(ROCK_SALT, (24, 24, 24), CHARGES)
    with pytest.raises(InputError, match="was calculated for"):
        PROBE.render({"total": density}, primitive(ROCK_SALT))


def test_structure_without_a_space_group_is_refused() -> None:
    collapsed = Structure(4 * np.eye(3), ["Na", "Na"], [O, [0.0, 0.0, 1e-4]])
    with pytest.raises(InputError, match="two atoms too close"):
        conventional_frame(collapsed)
    with pytest.raises(InputError, match="two atoms too close"):
        primitive_in_stored(collapsed)


# ------------------------------------------------------------------- views: the same field, seen elsewhere


def viewed(make: MakeDensity, structure: Structure, *views: tuple[float, float, float]) -> NDArray[np.float32]:
    """The (1-10) plane of a crystal in windows of 6 Å, one channel a view."""
    recipe = MetricRecipe("views", density_kinds=("total",), window=(6.0, 6.0), pixels=(60, 60), views=views)
    return picture(make, structure, recipe)


def test_views_are_parameters_and_do_not_change_older_recipes() -> None:
    assert "views" not in RECIPES["metric"].parameters()
    views = RECIPES["metric-views"]
    assert isinstance(views, MetricRecipe)
    assert views.views[0] == (0.0, 0.0, 0.0)
    assert len(views.parameters()["views"]) == len(views.views) == 4
    assert views.channel_kinds == ("total", "deformation") * 4
    # Never a magnification: all views, and all crystals, share one scale in Å.
    assert (views.window, views.pixels) == (MetricRecipe.window, MetricRecipe.pixels)


def test_view_is_rendered_from_the_same_density(gaussian_density: MakeDensity) -> None:
    plain, quarter, shifted = viewed(gaussian_density, TRICLINIC, (0, 0, 0), (90, 0, 0), (0, 1.0, 0.5))
    # Turned by a quarter, pixel for pixel; shifted by ten pixels to the right and five up, where both windows show it.
    np.testing.assert_allclose(quarter, np.rot90(plain, -1), atol=1e-4)
    np.testing.assert_allclose(shifted[5:, :-10], plain[:-5, 10:], atol=1e-4)


def test_rotated_view_has_the_densities_of_the_plane(gaussian_density: MakeDensity) -> None:
    recipe = MetricRecipe(
        "wide", density_kinds=("total",), window=(100.0, 100.0), pixels=(250, 250), views=((0, 0, 0), (31, 1.7, 2.3))
    )
    plain, turned = picture(gaussian_density, TRICLINIC, recipe)
    # Many cells in the window: the same distribution of e/Å^3, which no rescaling would leave.
    fade = np.hanning(250)[:, None] * np.hanning(250)
    assert np.average(turned, weights=fade) == pytest.approx(np.average(plain, weights=fade), rel=2e-3)
    levels = np.linspace(0.01, 0.99, 25)
    np.testing.assert_allclose(np.quantile(turned, levels), np.quantile(plain, levels), atol=0.03 * plain.max())
    # And the same spectrum: its strength, and the lengths of its wave vectors.
    strength = [np.abs(np.fft.fftshift(np.fft.fft2((v - v.mean()) * fade))) ** 2 for v in (plain, turned)]
    y, x = np.mgrid[-125:125, -125:125]
    for power in (0, 1, 2):
        moments = [(s * np.hypot(x, y) ** power).sum() for s in strength]
        assert moments[1] == pytest.approx(moments[0], rel=0.03)


@pytest.mark.parametrize("name", ["rock salt", "fluorite", "Heusler"])
def test_symmetries_of_the_crystal_give_no_new_view(gaussian_density: MakeDensity, name: str) -> None:
    plain, half = viewed(gaussian_density, CRYSTALS[name], (0, 0, 0), (180, 0, 0))
    scale = plain.max()
    np.testing.assert_allclose(half, plain, atol=4e-3 * scale)  # a twofold axis through the middle
    np.testing.assert_allclose(plain[:, ::-1], plain, atol=4e-3 * scale)  # a mirror plane
    edge = CRYSTALS[name].lattice.a
    (moved,) = viewed(gaussian_density, CRYSTALS[name], (0, edge / np.sqrt(2), 0))
    np.testing.assert_allclose(moved, plain, atol=4e-3 * scale)  # a lattice vector of the plane
    (other,) = viewed(gaussian_density, CRYSTALS[name], (33, 0.8, 0.3))
    assert abs(other - plain).max() > 0.1 * scale  # a motion that is not a symmetry changes the image


def test_views_do_not_depend_on_the_cell(gaussian_density: MakeDensity) -> None:
    recipe = replace(PROBE, planes=(((1, -1, 0), 0.0),), views=((0, 0, 0), (25, 1.0, -0.7)))
    expected = picture(gaussian_density, HEUSLER, recipe)
    for way, structure in other_cells(HEUSLER):
        assert abs(picture(gaussian_density, structure, recipe) - expected).max() < 4e-3 * expected.max(), way
