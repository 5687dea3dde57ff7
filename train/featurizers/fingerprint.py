"""Fingerprint of a crystal: a vector of its composition and density for similarity search, without labels.

The features of ``elements`` and of ``density-statistics`` are in units of their standard deviations over the crystals
of the bundled sample, so that a fingerprint does not depend on the other crystals of a registry. The third part is the
composition on Pettifor's scale, on which elements that replace each other are close, so that crystals of one prototype
are close as well.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from importlib.resources import files

import numpy as np
from numpy.typing import ArrayLike, NDArray

from registry.errors import ModelError
from train.featurizers.pettifor import PETTIFOR_DIM

__all__ = ["FINGERPRINT", "PARTS", "PETTIFOR_WEIGHT", "fingerprint", "fingerprint_dim"]

FINGERPRINT = "fingerprint"
"""Name of the encoder."""

PARTS: Mapping[str, str] = {"elements": "composition", "density-statistics": "density", "pettifor": "composition"}
"""Featurizers of the parts, in order, with the modality of each."""

PETTIFOR_WEIGHT = 3.0
"""Norm of the composition's part on Pettifor's scale; that of each of the other two parts is about 1.

Of the weights 0, 1, 2, 3 and 4 on the bundled sample, 3 was chosen: its neighbours have the same prototype nearly as
often as those by Pettifor's scale alone (87 and 90 %), and the differences of their properties are a sixth smaller."""

_LIMIT = 4.0
"""Largest absolute value of a standardised feature."""


def fingerprint(parts: Mapping[str, ArrayLike]) -> NDArray[np.float32]:
    """Compute the fingerprints of crystals.

    Parameters
    ----------
    parts
        Features (N, D_part) by name of the featurizer, for all of :data:`PARTS`.

    Returns
    -------
    NDArray
        (N, :func:`fingerprint_dim`), dimensionless.

    Raises
    ------
    ModelError
        If a part has another number of features than its scales.
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
    """Length of a fingerprint."""
    return PETTIFOR_DIM + sum(int((scale > 0).sum()) for _, scale in _scales().values())


@functools.cache
def _scales() -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Mean and standard deviation of each feature over the bundled sample; 0 if it is constant there."""
    found: dict[str, list[tuple[float, float]]] = {}
    with files("train.featurizers").joinpath("fingerprint.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            found.setdefault(row["features"], []).append((float(row["mean"]), float(row["scale"])))
    return {
        name: (np.array([mean for mean, _ in rows]), np.array([scale for _, scale in rows]))
        for name, rows in found.items()
    }
