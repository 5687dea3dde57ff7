"""What a source of crystals is, and the catalog of those that have a name.

A source lists its crystals as records. A record is small and picklable, so that a worker
process reads the crystal behind it; it knows the checksum of what it would read, so that a
second run can tell what is unchanged without reading anything else.

Nothing heavy is imported here: a run that finds nothing new ends in seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from registry.catalog import Catalog
from registry.crystals import DensityData, PropertyData
from registry.errors import ConfigurationError, UnknownNameError
from registry.files.grids import StoredGrid

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = [
    "SOURCES",
    "CrystalSource",
    "Download",
    "Downloading",
    "RawCrystal",
    "RawDescription",
    "SourceRecord",
    "load_sources",
    "open_source",
]


@dataclass(frozen=True)
class RawDescription:
    """A text that a source brings along."""

    text: str
    generator: str
    """What made it; the source's name where the source does not say."""
    generator_version: str | None = None


@dataclass(frozen=True, eq=False)
class RawCrystal:
    """A crystal as its source has it: read, not yet checked."""

    formula: str | None
    """As the source spells it; None: its structure tells."""
    structure: Structure | None
    """Cell [Å]; None where the source has none."""
    properties: tuple[PropertyData, ...] = ()
    densities: tuple[DensityData, ...] = ()
    density_structure: Structure | None = None
    """Cell and atoms that the density's file gives: what its grid refers to."""
    image: NDArray[np.float32] | None = None
    """A slice rendered elsewhere, shape (C, H, W)."""
    description: RawDescription | None = None
    problems: tuple[str, ...] = ()
    """What could not be read of it, one line each; the crystal is partial then."""
    derive_deformation: bool = False
    """Whether its deformation density is to be made of its total one and of free atoms; it has none of its own."""
    relaxed_apart: bool = False
    """Whether structure and density are of two calculations, whose cells and volumes may differ."""
    retry: bool = False
    """Whether another run may read more of it although nothing changes in its source."""
    keep: Callable[[], Mapping[tuple[str, str], StoredGrid]] | None = None
    """Puts what was downloaded into the cache, and tells which grids lie where by (kind, level of theory)."""


class SourceRecord(Protocol):
    """One crystal of a source, not read yet. Picklable."""

    @property
    def source(self) -> str:
        """Name of the source."""

    @property
    def source_id(self) -> str:
        """Its id there."""

    @property
    def has_description(self) -> bool:
        """Whether the source brings a text along."""

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
            Of properties and densities that do not say theirs; None: ``unspecified``.

        Raises
        ------
        InputError
            If nothing of the crystal can be used. One bad part of several is no error: it
            is left out and named in :attr:`RawCrystal.problems`.
        OSError
            If a file cannot be read now; worth another try.
        """


class CrystalSource(Protocol):
    """Crystals under one name."""

    @property
    def name(self) -> str:
        """Name in the registry: the identity of a crystal is this and its id."""

    @property
    def release(self) -> str | None:
        """The source's own version of its data."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """Lines that the user should read once, such as columns that are not used."""

    def __len__(self) -> int:
        """Number of records."""

    def records(self) -> Iterator[SourceRecord]:
        """All crystals, in an order that does not change."""


@dataclass(frozen=True)
class Download:
    """What reading some records would fetch."""

    objects: int
    cached: int
    """Of further records: what they need is in the cache already."""
    bytes: int
    """Of the objects, as far as that can be told without asking."""


@runtime_checkable
class Downloading(Protocol):
    """A source whose records download something large when they are read."""

    def foresee(self, records: Sequence[SourceRecord]) -> Download:
        """What reading these records would fetch; nothing is asked for that."""


SOURCES: Catalog[Callable[[], CrystalSource]] = Catalog("sources")
"""Sources that have a name of their own; a dataset folder is named by its path."""


def load_sources() -> None:
    """Fill :data:`SOURCES`: the modules of the sources register themselves, and import this one."""
    import ingest.sources.mp.source
    import ingest.sources.sample  # noqa: F401


def open_source(value: str, *, name: str | None = None) -> CrystalSource:
    """The source that a user means.

    Parameters
    ----------
    value
        A name of :data:`SOURCES`, or a path with a separator in it: a dataset folder.
    name
        Name of the folder's crystals in the registry; default: the folder's own.

    Raises
    ------
    UnknownNameError
        If there is no source of that name.
    ConfigurationError
        If a name is given to a source that has one, or a folder would take another's.
    SourceError
        If the folder is none, or its tables cannot be read.
    """
    load_sources()
    separators = {os.sep, os.altsep or os.sep}
    if not any(separator in value for separator in separators):
        if name is not None:
            raise ConfigurationError(f"source {value!r} has its name; --name is for a folder, whose path has a '/'")
        if value not in SOURCES and Path(value).is_dir():
            raise UnknownNameError(f"no source {value!r}; for the folder of that name write '{value}{os.sep}'")
        return SOURCES[value]()
    from ingest.sources.folder import FolderSource

    source = FolderSource(Path(value), name=name)
    if source.name in SOURCES:
        raise ConfigurationError(f"a folder cannot be called {source.name!r}, a source is; give it another --name")
    return source
