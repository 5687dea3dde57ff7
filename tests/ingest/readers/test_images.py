from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ingest.readers.images import read_image
from registry.errors import InputError

RAMP = np.arange(12).reshape(3, 4)


def test_grey_png_of_8_bits(tmp_path: Path) -> None:
    Image.fromarray((RAMP * 20).astype(np.uint8)).save(tmp_path / "x.png")
    found = read_image(tmp_path / "x.png")
    assert found.shape == (1, 3, 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], RAMP * 20 / 255, rtol=1e-6)


def test_grey_png_of_16_bits(tmp_path: Path) -> None:
    Image.fromarray((RAMP * 5000).astype(np.uint16)).save(tmp_path / "x.png")
    np.testing.assert_allclose(read_image(tmp_path / "x.png")[0], RAMP * 5000 / 65535, rtol=1e-6)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "1"])
def test_other_colour_modes_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 3)).save(tmp_path / "x.png")
    with pytest.raises(InputError, match=rf"x\.png: PNG of colour mode {mode}; .*grey"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "i2", "u1", ">f8"])
def test_arrays_keep_their_values(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "x.npy", RAMP.astype(dtype))
    found = read_image(tmp_path / "x.npy")
    assert found.dtype == np.float32
    assert np.array_equal(found, RAMP[None])
    np.save(tmp_path / "x.npy", np.stack([RAMP, -RAMP]).astype("f8"))
    assert read_image(tmp_path / "x.npy").shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[1.0, np.nan]]), "not finite"),
        (np.array([[1.0, np.inf]]), "not finite"),
        (np.array([[1e300]]), "not finite 32-bit"),
        (np.zeros(4), "has shape"),
        (np.zeros((1, 1, 2, 2)), "has shape"),
        (np.zeros((0, 4)), "has shape"),
        (np.zeros((2, 2), dtype=complex), "numbers are needed"),
        (np.zeros((2, 2), dtype=bool), "numbers are needed"),
        (np.array([["a"]]), "numbers are needed"),
    ],
)
def test_arrays_of_another_shape_or_type_are_refused(tmp_path: Path, values: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", values)
    with pytest.raises(InputError, match=message):
        read_image(tmp_path / "x.npy")


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[{"code": 1}]]), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read as an NPY array"):
        read_image(tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["x.png", "x.npy"])
def test_damaged_files_are_refused(tmp_path: Path, name: str) -> None:
    if name.endswith("npy"):
        np.save(tmp_path / name, np.random.default_rng(0).normal(size=(30, 30)))
    else:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 30)).astype(np.uint8)).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    for content in (data[: len(data) // 2], data[:20], b"", b"nothing of the kind"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: cannot be read") as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path / name)
    with pytest.raises(InputError, match="the suffix is not that of an image file"):
        read_image(tmp_path / "x.jpg")
