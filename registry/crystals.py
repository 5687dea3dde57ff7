"""Crystals: what ingestion hands over, how it is written, how it is found again.

The dataclasses are the currency between ``ingest``, ``registry`` and ``train``: they are
picklable, so that worker processes can make them. :func:`write_crystal` keeps the rules:
what is the same is not written again, what differs becomes a new revision, and the revision
that a split or a model used stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CrystalData",
    "DensityData",
    "DescriptionData",
    "PropertyData",
    "SliceData",
]


@dataclass(frozen=True)
class PropertyData:
    """A property's value, in the unit that ``registry.properties`` gives it."""

    name: str
    value: float
    level_of_theory: str
    source_release: str | None = None


@dataclass(frozen=True, eq=False)
class DensityData:
    """An electron charge density on a periodic grid."""

    kind: str
    """total, spin or deformation."""
    level_of_theory: str
    values: NDArray[np.floating[Any]]
    """Shape (n1, n2, n3), along the lattice vectors, without a repeated end point [e/Å^3]."""
    lattice: NDArray[np.float64]
    """Shape (3, 3), lattice vectors as rows [Å]."""
    provenance: str | None = None
    """How it was calculated, as its file says."""

    @property
    def volume(self) -> float:
        """Volume of the cell [Å^3]."""
        return float(abs(np.linalg.det(np.asarray(self.lattice, dtype=np.float64))))

    @property
    def n_electrons(self) -> float:
        """Integral over the cell [e]; for a spin density the moment [mu_B]."""
        return float(np.mean(self.values, dtype=np.float64)) * self.volume


@dataclass(frozen=True, eq=False)
class SliceData:
    """A slice image and how it was made."""

    recipe_name: str
    recipe_parameters: dict[str, Any]
    """JSON values; their hash is the recipe's version."""
    unit: str | None
    """Unit of the pixels; None for imported and fourier images."""
    pixels: NDArray[np.float32]
    """Shape (C, H, W)."""
    inputs: tuple[tuple[str, str], ...] = ()
    """(density kind, level of theory) per channel; empty for an imported image."""


@dataclass(frozen=True)
class DescriptionData:
    """A text at one level: formula, keywords or all."""

    level: str
    text: str
    generator: str
    generator_version: str | None = None


@dataclass(frozen=True, eq=False)
class CrystalData:
    """Everything that one source says of one crystal."""

    source: str
    source_id: str
    formula: str
    """Reduced formula."""
    structure: dict[str, Any] | None
    """pymatgen ``Structure.as_dict()`` [Å]; None where only the formula is known."""
    space_group_number: int | None
    space_group_symbol: str | None
    prototype: str | None
    """Anonymous formula, Pearson symbol and space group number, as ``AB-cF8-225``."""
    n_sites: int | None
    volume: float | None
    """Of the stored cell [Å^3]."""
    content_sha256: str
    """Of structure, properties and densities as they came."""
    properties: tuple[PropertyData, ...] = ()
    densities: tuple[DensityData, ...] = ()
    slices: tuple[SliceData, ...] = ()
    descriptions: tuple[DescriptionData, ...] = ()
    material_key: str | None = None
    """What this crystal shares with itself under other sources; None: found by :func:`material_key_of`."""
