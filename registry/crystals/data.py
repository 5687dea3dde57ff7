"""Data of a crystal: structure, properties, densities, slice images and descriptions.

``ingest`` creates these objects, ``registry`` writes them, and ``train`` predicts from them. They can be pickled, so
that worker processes can create them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.files.grids import StoredGrid

__all__ = ["CrystalData", "DensityData", "DescriptionData", "PropertyData", "SliceData"]


@dataclass(frozen=True)
class PropertyData:
    """Value of a property, in the unit that ``registry.properties`` declares."""

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
    """Description of the calculation, from its file."""
    origin: dict[str, Any] | None = None
    """Source of the download, JSON values: task_id, bucket, key, etag, sha256, bytes; slim, native_grid."""
    structure: dict[str, Any] | None = None
    """Atoms in the cell of the grid, ``Structure.as_dict()`` [Å]; None if it is the structure of the crystal."""

    @property
    def volume(self) -> float:
        """Volume of the cell [Å^3]."""
        return float(abs(np.linalg.det(np.asarray(self.lattice, dtype=np.float64))))

    @property
    def n_electrons(self) -> float:
        """Integral over the cell [e]; for a spin density, the magnetic moment [mu_B]."""
        return float(np.mean(self.values, dtype=np.float64)) * self.volume


@dataclass(frozen=True, eq=False)
class SliceData:
    """A slice image and the recipe that it was made with."""

    recipe_name: str
    recipe_parameters: dict[str, Any]
    """JSON values; their checksum is the version of the recipe."""
    unit: str | None
    """Unit of the pixels; None for imported and fourier images."""
    pixels: NDArray[np.float32]
    """Shape (C, H, W)."""
    inputs: tuple[tuple[str, str], ...] = ()
    """(density kind, level of theory) per channel; empty for an imported image."""


@dataclass(frozen=True)
class DescriptionData:
    """A text that describes the crystal."""

    text_level: str
    """formula, keywords or all."""
    text: str
    generator: str
    generator_version: str | None = None


@dataclass(frozen=True, eq=False)
class CrystalData:
    """All data of one crystal from one source."""

    source: str
    source_id: str
    formula: str
    """Reduced formula."""
    structure: dict[str, Any] | None
    """pymatgen ``Structure.as_dict()`` [Å]; None if only the formula is known."""
    space_group_number: int | None
    space_group_symbol: str | None
    prototype: str | None
    """Anonymous formula, Pearson symbol and space group number, such as ``AB-cF8-225``."""
    n_sites: int | None
    volume: float | None
    """Volume of the stored cell [Å^3]."""
    content_sha256: str
    """Checksum of structure, properties and densities as the source provided them."""
    properties: tuple[PropertyData, ...] = ()
    densities: tuple[DensityData, ...] = ()
    slices: tuple[SliceData, ...] = ()
    descriptions: tuple[DescriptionData, ...] = ()
    material_key: str | None = None
    """Key of the material, the same under all sources; None: :func:`registry.crystals.material_key_of` finds it."""
    stored: Mapping[tuple[str, str], StoredGrid] = field(default_factory=dict)
    """Grids of :attr:`densities` that are already in a store, by (kind, level of theory)."""
