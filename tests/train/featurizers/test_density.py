from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from registry.errors import InputError
from train.featurizers.density import DENSITY_FEATURE_KINDS, density_features, density_groups, density_labels
from train.featurizers.density_fields import Waves, lda_potential
from train.featurizers.density_sites import surroundings

LATTICE = 4.0 * np.eye(3)
PRIMITIVE = 5.6 * np.array([[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
ROCK_SALT = [([0.0, 0.0, 0.0], 7.0, 0.55), ([0.5, 0.5, 0.5], 1.0, 0.8)]
CHANGES = [([0.0, 0.0, 0.0], 0.6, 0.7), ([0.5, 0.5, 0.5], -0.6, 0.9)]


def gaussians(
    atoms: list[tuple[list[float], float, float]], lattice: NDArray[np.float64], n: int
) -> NDArray[np.float64]:
    """Normalised Gaussians of (position, electrons, width) on n^3 points, summed over all cells [e/Å^3]."""
    index = np.fft.fftfreq(n, 1 / n)
    waves = np.stack(np.meshgrid(index, index, index, indexing="ij"), -1)
    squares = np.sum((waves @ (2 * np.pi * np.linalg.inv(lattice).T)) ** 2, axis=-1)
    field = sum(q * np.exp(-2j * np.pi * waves @ np.array(x) - w**2 * squares / 2) for x, q, w in atoms)
    return np.asarray(np.fft.ifftn(field).real * n**3 / abs(np.linalg.det(lattice)))


def features(
    atoms: list[tuple[list[float], float, float]],
    changes: list[tuple[list[float], float, float]],
    lattice: NDArray[np.float64],
    n: int,
) -> dict[str, float]:
    values = {"total": gaussians(atoms, lattice, n), "deformation": gaussians(changes, lattice, n)}
    vector = density_features(values, lattice, structure(atoms))
    assert np.isfinite(vector).all()
    return dict(zip(density_labels(), vector, strict=True))


def structure(atoms: list[tuple[list[float], float, float]]) -> dict[str, Any]:
    return {"sites": [{"abc": position} for position, _, _ in atoms]}


def moved(atoms: list[tuple[list[float], float, float]], by: list[float]) -> list[tuple[list[float], float, float]]:
    return [((np.array(x) + by).tolist(), q, w) for x, q, w in atoms]


def conventional(
    atoms: list[tuple[list[float], float, float]],
) -> list[tuple[list[float], float, float]]:
    """The same crystal in its cubic cell."""
    centres = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    cubic = [(np.array(x) @ PRIMITIVE / 5.6, q, w) for x, q, w in atoms]
    return [((x + c).tolist(), q, w) for x, q, w in cubic for c in centres]


@pytest.fixture(scope="module")
def rock_salt() -> dict[str, float]:
    return features(ROCK_SALT, CHANGES, PRIMITIVE, 24)


def test_names_and_groups() -> None:
    labels = density_labels()
    assert len(set(labels)) == len(labels) == sum(density_groups().values())
    assert list(density_groups()) == ["size", "quantiles", "means", "gradients", "between", "sites", "bonds"]
    in_order = [label.split(" ", 1)[0] for label in labels]
    assert in_order == [group for group, n in density_groups().items() for _ in range(n)]


def test_one_gaussian_has_its_analytic_averages() -> None:
    width, electrons = 0.6, 3.0
    found = features([([0.0] * 3, electrons, width)], [([0.0] * 3, 0.5, width)], LATTICE, 32)
    assert found["size electrons per atom"] == pytest.approx(electrons, rel=1e-10)
    assert found["size volume per atom"] == pytest.approx(64)
    peak = electrons / (2 * np.pi * width**2) ** 1.5
    for radius in (0.0, 0.7, 1.2):  # neighbours 4 Å away reach less than 1e-6 in here
        expected = peak * np.exp(-(radius**2) / (2 * width**2))
        assert found[f"sites total at {radius} Å mean"] == pytest.approx(expected, rel=1e-4)
    from scipy.special import erf

    x = 1.0 / (width * np.sqrt(2))
    within = electrons * (erf(x) - 2 / np.sqrt(np.pi) * x * np.exp(-(x**2)))
    assert found["sites total within 1.0 Å mean"] == pytest.approx(within, rel=1e-4)
    assert found["sites electrons mean"] == pytest.approx(electrons, rel=1e-10)
    assert found["sites volume mean"] == pytest.approx(64)
    assert found["bonds per atom"] == 6
    assert found["bonds length mean"] == pytest.approx(4)
    middle = 2 * peak * np.exp(-4 / (2 * width**2))
    assert found["bonds minimum mean"] == pytest.approx(middle, rel=0.02)


def test_charges_go_from_one_atom_to_the_other(rock_salt: dict[str, float]) -> None:
    assert rock_salt["sites transferred mean"] == pytest.approx(0, abs=1e-9)
    assert rock_salt["sites transferred max"] == pytest.approx(-rock_salt["sites transferred min"])
    assert rock_salt["sites transferred max"] > 0.3
    assert rock_salt["sites electrons mean"] == pytest.approx(4)


def test_the_origin_does_not_matter(rock_salt: dict[str, float]) -> None:
    by = [5 / 24, 1 / 24, -7 / 24]
    _alike(features(moved(ROCK_SALT, by), moved(CHANGES, by), PRIMITIVE, 24), rock_salt, rel=1e-6)


def test_an_origin_between_grid_points_hardly_matters(rock_salt: dict[str, float]) -> None:
    by = [0.013, 0.021, -0.008]
    other = features(moved(ROCK_SALT, by), moved(CHANGES, by), PRIMITIVE, 24)
    for name in ("sites total at 0.7 Å max", "sites total within 1.2 Å min", "means 4/3", "bonds minimum mean"):
        assert other[name] == pytest.approx(rock_salt[name], rel=2e-3), name


def test_the_setting_and_the_order_of_atoms_do_not_matter(rock_salt: dict[str, float]) -> None:
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    _alike(features(ROCK_SALT[::-1], CHANGES[::-1], PRIMITIVE @ rotation, 24), rock_salt, rel=1e-6)


def test_the_conventional_cell_gives_what_the_primitive_one_gives() -> None:
    primitive = features(ROCK_SALT, CHANGES, PRIMITIVE, 24)
    cubic = features(conventional(ROCK_SALT), conventional(CHANGES), 5.6 * np.eye(3), 34)
    scale = np.array([abs(v) for v in primitive.values()])
    apart = np.array([abs(cubic[name] - primitive[name]) for name in primitive]) / (scale + 0.05)
    # The grids have other points, so that what counts points moves with them; the rest is the same.
    assert np.mean(apart < 0.03) > 0.93
    for name in (
        "size volume per atom",
        "sites total at 1.0 Å std",
        "bonds per atom",
        "bonds minimum min",
        "means 1/3",
    ):
        assert cubic[name] == pytest.approx(primitive[name], rel=1e-3), name
    doubled = {
        "total": np.tile(gaussians(ROCK_SALT, PRIMITIVE, 16), (1, 1, 2)),
        "deformation": np.tile(gaussians(CHANGES, PRIMITIVE, 16), (1, 1, 2)),
    }
    twice = [([x[0], x[1], (x[2] + k) / 2], q, w) for x, q, w in ROCK_SALT for k in (0, 1)]
    vector = density_features(doubled, PRIMITIVE * [[1], [1], [2]], structure(twice))
    _alike(dict(zip(density_labels(), vector, strict=True)), features(ROCK_SALT, CHANGES, PRIMITIVE, 16), rel=1e-5)


def test_scale_is_kept() -> None:
    small = features(ROCK_SALT, CHANGES, PRIMITIVE, 20)
    large = features(ROCK_SALT, CHANGES, 1.1 * PRIMITIVE, 20)
    assert large["between faces total"] < 0.9 * small["between faces total"]
    assert large["bonds length mean"] == pytest.approx(1.1 * small["bonds length mean"])


def test_invalid_densities_raise() -> None:
    total = gaussians(ROCK_SALT, PRIMITIVE, 12)
    atoms = structure(ROCK_SALT)
    for kind in DENSITY_FEATURE_KINDS:
        with pytest.raises(InputError, match="missing"):
            density_features({kind: total}, PRIMITIVE, atoms)
    with pytest.raises(InputError, match="shapes"):
        density_features({"total": total, "deformation": total[:-1]}, PRIMITIVE, atoms)
    with pytest.raises(InputError, match="finite"):
        density_features({"total": total * np.nan, "deformation": total}, PRIMITIVE, atoms)
    with pytest.raises(InputError, match="0 atoms"):
        density_features({"total": total, "deformation": total}, PRIMITIVE, {"sites": []})


def test_derivatives_of_one_wave() -> None:
    lattice = np.array([[3.0, 0, 0], [1.0, 4.0, 0], [0, 0, 5.0]])
    n = (12, 10, 8)
    x, y = np.arange(12) / 12, np.arange(10) / 10
    phase = 2 * np.pi * (x[:, None, None] + 2 * y[None, :, None]) * np.ones(n)
    g = float(np.linalg.norm(2 * np.pi * np.linalg.inv(lattice).T.T @ np.array([1, 2, 0])))
    waves = Waves(n, lattice)
    coefficients = waves.coefficients(np.cos(phase))
    np.testing.assert_allclose(waves.gradient(coefficients), g * np.abs(np.sin(phase)), atol=1e-10)
    np.testing.assert_allclose(waves.laplacian(coefficients), -(g**2) * np.cos(phase), atol=1e-9)
    assert waves.around(coefficients, [0.25, 0, 0]).sum() == pytest.approx(0, abs=1e-12)
    assert waves.ball(1.3)[0, 0, 0] == pytest.approx(4 / 3 * np.pi * 1.3**3)


def test_lda_potential_is_the_derivative_of_its_energy() -> None:
    exchange, correlation = lda_potential(np.array([0.0298412]))  # rs = 2 a0 x 1.889..., that is rs [Å] = 2
    rs = 2.0 / 0.529177210903
    assert exchange[0] == pytest.approx(-27.211386 * (9 / (4 * np.pi**2)) ** (1 / 3) / rs, rel=1e-4)
    # Perdew and Wang, rs = 2: energy -0.0448 Ha; its potential is a little lower.
    density = 3 / (4 * np.pi * (2 * 0.529177210903) ** 3)
    assert lda_potential(np.array([density]))[1][0] / 27.211386 == pytest.approx(-0.0511, abs=4e-4)
    assert correlation[0] < 0


def test_shares_of_points_sum_to_one() -> None:
    around = surroundings((6, 6, 6), PRIMITIVE, np.array([[0.0, 0, 0], [0.5, 0.5, 0.5]]))
    np.testing.assert_allclose(around.shares.sum(axis=0), 1)
    assert around.nearest.min() == pytest.approx(0, abs=1e-12)
    assert (around.gap >= 0).all()


def _alike(found: dict[str, float], expected: dict[str, float], *, rel: float) -> None:
    apart = {
        name: (found[name], value)
        for name, value in expected.items()
        if found[name] != pytest.approx(value, rel=rel, abs=1e-7)
    }
    assert apart == {}
