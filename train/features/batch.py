"""Batch: inputs of N crystals as a model reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch"]


@dataclass(frozen=True)
class Batch:
    """Inputs of N crystals: frozen features, and raw inputs where backbones are fine-tuned."""

    n: int
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """By modality, (N, D)."""
    raw: Mapping[str, NDArray[np.float32] | Sequence[str]] = field(default_factory=dict)
    """By modality: pixels (N, C, H, W) in the unit of the recipe, or N texts."""

    def __len__(self) -> int:
        return self.n

    def take(self, rows: NDArray[np.int64]) -> Batch:
        """The given rows, in the given order."""
        return Batch(
            n=len(rows),
            features={name: values[rows] for name, values in self.features.items()},
            raw={
                name: values[rows] if isinstance(values, np.ndarray) else [values[i] for i in rows]
                for name, values in self.raw.items()
            },
        )
