from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.core.structure import Structure
from scipy.ndimage import map_coordinates

from ingest.slices.planes import fourier_magnitude, index_slice, metric_slice, plane_frame, plane_points
from ingest.slices.symmetry import ConventionalFrame
from registry.crystals import DensityData
from registry.errors import ConfigurationError

Make = Callable[..., DensityData]
CUBIC = ConventionalFrame(origin=np.zeros(3), axes=5.0 * np.eye(3))


def test_index_slice_is_the_published_formula() -> None:
    rho = np.random.default_rng(0).normal(size=(60, 60, 60))
    picture = index_slice(rho)
    assert picture.shape == (186, 186)
    for i in range(25, 211):
        for j in range(25, 211):
            assert picture[i - 25, j - 25] == rho[i % 60, j % 60, (480 - i - j) % 60]


def test_index_slice_is_a_plane_through_the_tiled_supercell() -> None:
    rho = np.random.default_rng(1).normal(size=(4, 4, 4))
    tiled = np.tile(rho, (8, 8, 8))
    picture = index_slice(rho, start=2, stop=14)
    for i in range(2, 14):
        for j in range(2, 14):
            assert i + j + (32 - i - j) == 32  # the plane x + y + z = 8 cells
            assert picture[i - 2, j - 2] == tiled[i, j, 32 - i - j]


def test_index_slice_needs_equal_axes() -> None:
    with pytest.raises(ConfigurationError, match="cubic grid"):
        index_slice(np.zeros((4, 4, 5)))


@pytest.mark.parametrize(
    ("miller", "horizontal", "vertical"),
    [
        ((1, -1, 0), (1, 1, 0), (0, 0, 1)),
        ((1, 1, 1), (-1, 1, 0), (-1, -1, 2)),
        ((0, 0, 1), (1, 0, 0), (0, 1, 0)),
        ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ],
)
def test_axes_of_cubic_planes(
    miller: tuple[int, int, int], horizontal: tuple[int, ...], vertical: tuple[int, ...]
) -> None:
    frame = plane_frame(CUBIC, miller)
    np.testing.assert_allclose(frame.horizontal, np.array(horizontal) / np.linalg.norm(horizontal), atol=1e-12)
    np.testing.assert_allclose(frame.vertical, np.array(vertical) / np.linalg.norm(vertical), atol=1e-12)
    np.testing.assert_allclose(np.cross(frame.horizontal, frame.vertical), frame.normal, atol=1e-12)


@settings(deadline=None)
@given(
    miller=st.tuples(*[st.integers(-4, 4)] * 3).filter(any),
    offset=st.floats(-2, 2),
    seed=st.integers(0, 2**16),
)
def test_plane_satisfies_its_equation_in_any_cell(miller: tuple[int, int, int], offset: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    axes = 4 * np.eye(3) + rng.uniform(-1, 1, (3, 3))
    setting = ConventionalFrame(origin=rng.normal(size=3), axes=axes)
    frame = plane_frame(setting, miller, offset=offset)
    triad = np.array([frame.horizontal, frame.vertical, frame.normal])
    np.testing.assert_allclose(triad @ triad.T, np.eye(3), atol=1e-10)
    points = plane_points(frame, window=(7.0, 5.0), pixels=(6, 8))
    conventional = (points - setting.origin) @ np.linalg.inv(axes)
    np.testing.assert_allclose(conventional @ np.array(miller), offset, atol=1e-9)


def test_mirrored_crystal_gives_the_mirrored_plane() -> None:
    mirror = np.diag([1.0, 1.0, -1.0])
    axes = np.array([[4.0, 0.3, 0.1], [0.0, 5.0, 0.4], [0.2, 0.0, 6.0]])
    frame = plane_frame(ConventionalFrame(np.zeros(3), axes), (2, 1, -1), offset=0.3)
    mirrored = plane_frame(ConventionalFrame(np.zeros(3), axes @ mirror), (2, 1, -1), offset=0.3)
    for name in ("origin", "horizontal", "vertical", "normal"):
        np.testing.assert_allclose(getattr(mirrored, name), getattr(frame, name) @ mirror, atol=1e-12)


def test_plane_without_indices_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"other than \(0, 0, 0\)"):
        plane_frame(CUBIC, (0, 0, 0))


def test_pixel_centres() -> None:
    points = plane_points(plane_frame(CUBIC, (0, 0, 1)), window=(12.0, 6.0), pixels=(3, 4))
    assert points.shape == (3, 4, 3)
    np.testing.assert_allclose(points[0, :, 0], [-4.5, -1.5, 1.5, 4.5])
    np.testing.assert_allclose(points[:, 0, 1], [2.0, 0.0, -2.0])  # row 0 is the top
    np.testing.assert_allclose(points.mean(axis=(0, 1)), 0.0, atol=1e-12)


def test_spline_equals_that_of_a_tiled_supercell() -> None:
    rng = np.random.default_rng(2)
    density = DensityData("total", "GGA", rng.normal(size=(8, 9, 10)), np.diag([4.0, 4.5, 5.0]))
    fractional = rng.uniform(-3, 3, (50, 3))
    # A spline's memory fades by a factor of 0.27 a point: three cells away the edge is forgotten.
    tiled = np.tile(density.values, (7, 7, 7))
    points = ((fractional % 1) + 3) * np.array([8, 9, 10])
    expected = map_coordinates(tiled, points.T, order=3, mode="nearest")
    np.testing.assert_allclose(metric_slice(density, fractional), expected, atol=1e-9)
    np.testing.assert_allclose(
        metric_slice(density, fractional + rng.integers(-5, 5, 3)), metric_slice(density, fractional), atol=1e-11
    )


@pytest.mark.parametrize("order", [0, 1, 3, 5])
def test_spline_passes_through_the_grid(order: int) -> None:
    values = np.random.default_rng(3).normal(size=(8, 9, 10))
    nodes = np.stack(np.meshgrid(*[np.arange(n) / n for n in values.shape], indexing="ij"), axis=-1)
    found = metric_slice(DensityData("total", "GGA", values, np.eye(3)), nodes, spline_order=order)
    np.testing.assert_allclose(found, values, atol=1e-10)


def test_spline_follows_an_analytic_density(gaussian_density: Make) -> None:
    atom = Structure(4 * np.eye(3), ["Na"], [[0.3, 0.2, 0.6]])
    density = gaussian_density(atom, (32, 32, 32), {"Na": (1.0, 0.5)})
    point = np.array([[1.5, 1.1, 2.0]])
    squares = [
        ((point[0] - 4 * (atom.frac_coords[0] + shift)) ** 2).sum()
        for shift in np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), axis=-1).reshape(-1, 3)
    ]
    exact = np.exp(-np.array(squares) / (2 * 0.25)).sum() / (2 * np.pi * 0.25) ** 1.5
    assert metric_slice(density, point / 4)[0] == pytest.approx(exact, rel=1e-3)


def test_fourier_magnitude_of_a_wave() -> None:
    x = np.arange(64)
    wave = np.cos(2 * np.pi * 5 * x / 64)[None, :] * np.ones((64, 1)) + 2.0
    found = fourier_magnitude(np.stack([wave, np.zeros_like(wave)]))
    assert found.shape == (2, 64, 64)
    assert found.dtype == np.float32
    assert found[0, 32, 32] == pytest.approx(np.log1p(2 * 64 * 64), rel=1e-6)
    assert found[0, 32, 32 + 5] == pytest.approx(np.log1p(64 * 64 / 2), rel=1e-6)
    assert found[0, 32, 32 - 5] == pytest.approx(np.log1p(64 * 64 / 2), rel=1e-6)
    rest = found.copy()
    rest[0, 32, [27, 32, 37]] = 0
    assert rest.max() < 1e-6
    # Moving the picture changes phases alone.
    np.testing.assert_allclose(fourier_magnitude(np.roll(wave, 7, axis=1)[None])[0], found[0], atol=1e-6)
