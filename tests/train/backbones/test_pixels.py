"""The pixel statistics: what they keep, what they leave alone, and that they are used like any backbone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from registry.errors import InputError, ModelError
from train.backbones.image import ImageBackbone
from train.backbones.image_loaders import load_image_backbone
from train.backbones.pixels import BINS, PixelStatistics, joint_histogram, planes_of
from train.modalities import restore_featurizer


@pytest.fixture(scope="module")
def statistics() -> ImageBackbone:
    return load_image_backbone("pixel_statistics", channels=["total", "deformation"], image_size=64)


def pictures(n: int = 2, size: int = 64) -> NDArray[np.float32]:
    """Smooth waves of no symmetry, in e/Å^3."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0 : 12 : complex(size), 0 : 12 : complex(size)]
    made = []
    for _ in range(n):
        (a, b, c, d), phase = rng.uniform(0.5, 2.5, 4), rng.uniform(0, 6, 2)
        total = 0.4 + 0.3 * np.cos(a * x + b * y + phase[0]) + 0.1 * np.sin(c * x)
        made.append([total, 0.05 * np.sin(d * y + phase[1]) * np.cos(a * x)])
    return np.array(made, dtype=np.float32)


def test_it_is_a_backbone_of_the_catalog(statistics: ImageBackbone) -> None:
    assert isinstance(statistics, PixelStatistics)
    features = statistics.features(pictures())
    # One pair of kinds and two channels with their gradients; 5 scales, 4 fields, 7 statistics, 2 channels.
    assert features.shape == (2, 3 * BINS**2 + 5 * 4 * 7 * 2) == (2, statistics.dim)
    again = restore_featurizer(statistics.spec())
    assert isinstance(again, PixelStatistics)
    assert again.weights_sha256 == statistics.weights_sha256
    assert again.preprocessing() == statistics.preprocessing()
    np.testing.assert_array_equal(again.features(pictures()), features)


@pytest.mark.parametrize("kinds", [["total"], ["fourier"], ["imported", "imported"], ["total", "deformation"] * 2])
def test_all_channel_kinds_are_supported(kinds: list[str]) -> None:
    backbone = load_image_backbone("pixel_statistics", channels=kinds, image_size=32)
    features = backbone.features(np.random.default_rng(0).random((3, len(kinds), 40, 48), dtype=np.float32))
    assert features.shape == (3, backbone.dim)
    assert len({row.tobytes() for row in features}) == 3


def test_channels_of_one_plane_belong_together(statistics: ImageBackbone) -> None:
    assert planes_of(["total", "spin", "deformation"]) == [[0, 1, 2]]
    assert planes_of(["total", "total"]) == [[0], [1]]
    # Plane after plane, so that views of a crystal lie side by side.
    both = load_image_backbone("pixel_statistics", channels=["total", "deformation"] * 2, image_size=64)
    first, second = pictures()
    found = both.features(np.concatenate([first, second])[None])[0]
    np.testing.assert_allclose(found, statistics.features(pictures()).ravel(), atol=1e-6)


@pytest.mark.parametrize("turn", [1, 2, 3])
@pytest.mark.parametrize("mirror", [False, True])
def test_statistics_are_invariant_to_rotation_and_reflection(
    statistics: ImageBackbone, turn: int, mirror: bool
) -> None:
    plain = pictures()
    moved = np.rot90(plain, turn, axes=(2, 3))
    moved = np.ascontiguousarray(moved[..., ::-1] if mirror else moved)
    np.testing.assert_allclose(statistics.features(moved), statistics.features(plain), atol=1e-4)


def test_absolute_densities_are_kept(statistics: ImageBackbone) -> None:
    plain, denser = statistics.features(np.concatenate([pictures(1), 1.2 * pictures(1)]))
    # The same picture by shape: whoever rescaled each picture would see no difference.
    assert np.abs(plain - denser).max() > 0.05
    one, other = statistics.features(pictures(2))
    np.testing.assert_allclose(statistics.features(pictures(1))[0], one, atol=1e-6)  # no scale of its batch
    assert np.abs(one - other).max() > 0.05


def test_statistics_depend_on_the_length_scale(statistics: ImageBackbone) -> None:
    _, x = np.mgrid[0:12:64j, 0:12:64j]
    waves = [np.stack([0.4 + 0.3 * np.cos(k * x), 0.05 * np.cos(k * x)]) for k in (2.0, 2.2)]
    one, other = statistics.features(np.array(waves, dtype=np.float32))
    assert np.abs(one - other).max() > 0.01


def test_negative_densities_are_not_cut_off(statistics: ImageBackbone) -> None:
    plain = pictures(1)
    deep = plain.copy()
    deep[0, 0, :8, :8] = -5.0  # a pseudo-density at a nucleus
    shallow = plain.copy()
    shallow[0, 0, :8, :8] = -0.5
    assert np.abs(statistics.features(deep) - statistics.features(shallow)).max() > 0.02


def test_joint_histograms_hold_all_pixels() -> None:
    values = torch.linspace(-2, 2, 32 * 32).reshape(1, 32, 32)
    found = joint_histogram(values, values.flip(1), (-1, 1), (-1, 1))
    assert found.shape == (1, BINS**2)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-5)
    moved = joint_histogram(values + 1e-4, values.flip(1), (-1, 1), (-1, 1))
    assert float((moved - found).abs().sum()) < 5e-3  # smooth: no pixel jumps into another bin


def test_gradients_are_finite_everywhere(statistics: ImageBackbone) -> None:
    for values in (pictures(1), np.zeros((1, 2, 64, 64), dtype=np.float32)):
        pixels = torch.tensor(values, requires_grad=True)
        statistics(pixels).sum().backward()
        assert pixels.grad is not None
        assert torch.isfinite(pixels.grad).all()


def test_invalid_slices_raise(statistics: ImageBackbone) -> None:
    with pytest.raises(ModelError, match=r"takes \(N, 2, H, W\)"):
        statistics.features(np.zeros((1, 3, 64, 64), dtype=np.float32))
    imported = load_image_backbone("pixel_statistics", channels=["imported"], image_size=32)
    with pytest.raises(InputError, match="outside"):
        imported.features(np.full((1, 1, 32, 32), 200.0, dtype=np.float32))
