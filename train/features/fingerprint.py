"""A vector of composition and density together, to look for neighbours in; no label has a part in it.

Every feature of ``elements`` and of ``density-statistics`` counts in units of its standard deviation over the crystals
of the bundled sample, so that a crystal's fingerprint never changes, whatever else a registry holds. Beside them
stands the composition on Pettifor's scale, where elements that replace each other are near: crystals of one prototype
come together by it.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from importlib.resources import files

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry.errors import ModelError

__all__ = ["FINGERPRINT", "PARTS", "PETTIFOR_WEIGHT", "fingerprint", "fingerprint_dim"]

FINGERPRINT = "fingerprint"
"""Name of the encoder."""

PARTS: Mapping[str, str] = {"elements": "composition", "density-statistics": "density", "pettifor": "composition"}
"""Features that it is made of, in their order, with the modality of each."""

PETTIFOR_WEIGHT = 3.0
"""Length of the composition's curve on Pettifor's scale; that of each of the two blocks beside it is about 1.

Of 0, 1, 2, 3 and 4, 3 has on the bundled sample neighbours nearly as often of one prototype as Pettifor's scale alone
(87 to 90 %), whose properties lie a sixth nearer."""

_LIMIT = 4.0
"""Standard deviations that a feature may lie from the mean."""


def fingerprint(parts: Mapping[str, ArrayLike]) -> NDArray[np.float32]:
    """Vectors of crystals.

    Parameters
    ----------
    parts
        By name of :data:`PARTS`, features (N, D_part) as their backbones give them.

    Returns
    -------
    NDArray
        (N, :func:`fingerprint_dim`), no unit.

    Raises
    ------
    ModelError
        If a part has another number of features than the one that the scales were measured with.
    """
    blocks = []
    for name in PARTS:
        values = np.asarray(parts[name], dtype=np.float64)
        if name == "pettifor":
            blocks.append(PETTIFOR_WEIGHT * values / np.linalg.norm(values, axis=1, keepdims=True))
            continue
        mean, scale = _scales()[name]
        if values.ndim != 2 or values.shape[1] != len(mean):
            raise ModelError(f"features {name!r} of shape {values.shape}; the fingerprint has scales of {len(mean)}")
        varies = scale > 0
        z = np.clip((values[:, varies] - mean[varies]) / scale[varies], -_LIMIT, _LIMIT)
        blocks.append(z / np.sqrt(varies.sum()))
    return np.hstack(blocks).astype(np.float32)


def fingerprint_dim() -> int:
    """Numbers of a vector."""
    from train.features.pettifor import PETTIFOR_DIM

    return PETTIFOR_DIM + sum(int((scale > 0).sum()) for _, scale in _scales().values())


@functools.cache
def _scales() -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Mean and standard deviation of each feature over the bundled sample; 0 where it does not vary there."""
    found: dict[str, list[tuple[float, float]]] = {}
    with files("train.features").joinpath("fingerprint.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            found.setdefault(row["features"], []).append((float(row["mean"]), float(row["scale"])))
    return {
        name: (np.array([mean for mean, _ in rows]), np.array([scale for _, scale in rows]))
        for name, rows in found.items()
    }
