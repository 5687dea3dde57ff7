"""Protocols of a source of crystals and of its records.

A source lists its crystals as records. A record is small and picklable, so that a worker process
can read the crystal. It computes a checksum of everything that it would read, so that a second
run detects unchanged crystals without reading them.

This module imports nothing heavy: a run without changes ends within seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from registry.crystals import DensityData, PropertyData
from registry.files.grids import StoredGrid

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = [
    "CrystalSource",
    "DownloadEstimate",
    "DownloadingSource",
    "RawCrystal",
    "RawDescription",
    "SourceRecord",
]


@dataclass(frozen=True)
class RawDescription:
    """A text that a source provides."""

    text: str
    generator: str
    """Program that wrote the text; the name of the source where the source does not state it."""
    generator_version: str | None = None


@dataclass(frozen=True, eq=False)
class RawCrystal:
    """A crystal as its source provides it: read, not yet checked."""

    formula: str | None
    """In the spelling of the source; None: it follows from the structure."""
    structure: Structure | None
    """Cell [Å]; None where the source has none."""
    properties: tuple[PropertyData, ...] = ()
    densities: tuple[DensityData, ...] = ()
    density_structure: Structure | None = None
    """Cell and atoms of the density's file, to which its grid refers."""
    image: NDArray[np.float32] | None = None
    """A slice rendered elsewhere, shape (C, H, W)."""
    description: RawDescription | None = None
    problems: tuple[str, ...] = ()
    """Parts that could not be read, one line each; the outcome is then ``partial``."""
    derive_deformation: bool = False
    """Whether the deformation density is computed from the total one and free atoms; the source has none."""
    relaxed_apart: bool = False
    """Whether structure and density come from two calculations, so that their cells and volumes may differ."""
    retry: bool = False
    """Whether a later run may read more although the source has not changed."""
    keep: Callable[[], Mapping[tuple[str, str], StoredGrid]] | None = None
    """Write the download to the cache and return the stored grids by (kind, level of theory)."""


class SourceRecord(Protocol):
    """One crystal of a source, not read yet. Picklable."""

    @property
    def source(self) -> str:
        """Name of the source."""

    @property
    def source_id(self) -> str:
        """Id of the crystal in the source."""

    @property
    def has_description(self) -> bool:
        """Whether the source provides a text."""

    def input_sha256(self) -> str:
        """Checksum of everything that :meth:`read` would read.

        Raises
        ------
        OSError
            If a file cannot be read now.
        """

    def read(self, *, level_of_theory: str | None = None) -> RawCrystal:
        """Read the crystal.

        Parameters
        ----------
        level_of_theory
            Of properties and densities that do not state theirs; None: ``unspecified``.

        Raises
        ------
        InputError
            If nothing of the crystal can be used. One unusable part is not an error: it is left
            out and listed in :attr:`RawCrystal.problems`.
        OSError
            If a file cannot be read now; a later run may succeed.
        """


class CrystalSource(Protocol):
    """Crystals under one source name."""

    @property
    def name(self) -> str:
        """Name in the registry; a crystal is identified by this name and its id."""

    @property
    def release(self) -> str | None:
        """Version that the source gives to its data."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Lines for the user, such as columns that are not used."""

    def __len__(self) -> int:
        """Number of records."""

    def records(self) -> Iterator[SourceRecord]:
        """All crystals, in a fixed order."""


@dataclass(frozen=True)
class DownloadEstimate:
    """Number and size of the objects that some records would download."""

    objects: int
    cached: int
    """Number of further records with their object in the cache."""
    bytes: int
    """Size of the objects, estimated without a request."""


@runtime_checkable
class DownloadingSource(Protocol):
    """A source with records that download large objects when they are read."""

    def estimate_download(self, records: Sequence[SourceRecord]) -> DownloadEstimate:
        """Estimate the download of these records without a request."""
