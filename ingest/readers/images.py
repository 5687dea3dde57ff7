"""Reader of rendered slice images: PNG and NPY."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from registry.errors import InputError

__all__ = ["IMAGE_SUFFIXES", "read_image"]

IMAGE_SUFFIXES = (".png", ".npy")
"""Suffixes of image files, in the order in which a dataset folder is searched."""

_FULL_SCALE = {"L": 255.0, "I;16": 65535.0, "I;16B": 65535.0, "I;16L": 65535.0}


def read_image(path: Path) -> NDArray[np.float32]:
    """Read a slice image.

    ``.png``: grey, 8 or 16 bits, scaled to [0, 1] by the full range of its format. ``.npy``: numbers
    of shape (H, W) or (C, H, W), unchanged.

    Returns
    -------
    ndarray
        Shape (C, H, W), float32.

    Raises
    ------
    InputError
        If the file cannot be read, is in colour or has transparency, or contains something other than
        finite numbers of that shape.
    """
    suffix = path.suffix.lower()
    if suffix == ".png":
        return _read_png(path)
    if suffix == ".npy":
        return _read_npy(path)
    raise InputError(f"{path.name}: the suffix is not that of an image file; use .png or .npy")


def _read_png(path: Path) -> NDArray[np.float32]:
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
            mode, values = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path.name}: cannot be read as a PNG image ({' '.join(str(error).split())})") from None
    if mode not in _FULL_SCALE:
        raise InputError(
            f"{path.name}: PNG of colour mode {mode}; a slice has one number per pixel: "
            "save it as 8- or 16-bit grey, or save its values as .npy"
        )
    return (values.astype(np.float64) / _FULL_SCALE[mode]).astype(np.float32)[None]


def _read_npy(path: Path) -> NDArray[np.float32]:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path.name}: cannot be read as an NPY array ({' '.join(str(error).split())})") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise InputError(f"{path.name}: contains {getattr(values, 'dtype', type(values).__name__)}; numbers are needed")
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise InputError(f"{path.name}: has shape {values.shape}; (H, W) or (C, H, W) is needed")
    if not np.isfinite(values).all() or np.abs(values).max() > np.finfo(np.float32).max:
        raise InputError(f"{path.name}: contains values that are not finite 32-bit numbers")
    image_values = np.ascontiguousarray(values, dtype=np.float32)
    return image_values if image_values.ndim == 3 else image_values[None]
