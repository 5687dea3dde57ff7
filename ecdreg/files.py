"""Files of a crystal that is not in the registry, read by the same pipeline as an ingest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import ConfigurationError, EcdregError, IncompatibleInputError, InputError

if TYPE_CHECKING:
    from registry.crystals import CrystalData

__all__ = ["CrystalFiles", "read_crystal", "warnings_on_error"]


@dataclass(frozen=True)
class CrystalFiles:
    """Files of one crystal; false where neither a structure nor a density is given."""

    structure: Path | None = None
    """CIF, POSCAR, ``.vasp`` or pymatgen JSON."""
    density: Path | None = None
    """Charge density: CHGCAR, cube or HDF5, also ``.gz``; it contains the structure."""
    reference: Path | None = None
    """Density of the superposed free atoms on the same grid, as CHGCAR."""
    level_of_theory: str | None = None
    """Level of theory of the density, where its file does not state it."""

    @classmethod
    def of(
        cls,
        structure: str | Path | None,
        density: str | Path | None,
        reference: str | Path | None,
        level_of_theory: str | None,
    ) -> CrystalFiles:
        """Take paths as strings or as ``Path``.

        Parameters
        ----------
        structure, density, reference, level_of_theory
            As the attributes.
        """
        structure, density, reference = (None if p is None else Path(p) for p in (structure, density, reference))
        return cls(structure, density, reference, level_of_theory)

    def __bool__(self) -> bool:
        return self.structure is not None or self.density is not None

    def check(self) -> None:
        """Refuse a reference or a level of theory without a density.

        Raises
        ------
        ConfigurationError
            If one is given without.
        """
        for what, value in (("reference", self.reference), ("level of theory", self.level_of_theory)):
            if value is not None and self.density is None:
                raise ConfigurationError(f"the {what} {value} belongs to a density; give both")


def read_crystal(files: CrystalFiles, *, recipes: Sequence[str], texts: bool) -> tuple[CrystalData, tuple[str, ...]]:
    """Read the crystal in files, with slices and texts.

    Parameters
    ----------
    files
        A structure, a density, or both.
    recipes
        Slices to make.
    texts
        Whether texts are needed, which takes robocrystallographer.

    Returns
    -------
    crystal : CrystalData
        The crystal.
    problems : tuple of str
        Parts of the files that could not be used, with the reason.

    Raises
    ------
    IncompatibleInputError
        If a slice is needed that no density gives.
    InputError
        If the files contain no crystal that can be used.
    """
    from ingest.preparation.options import IngestOptions
    from ingest.preparation.prepare import IMPORTED, prepare_files

    if IMPORTED in recipes:
        raise IncompatibleInputError(
            "images that were rendered elsewhere cannot be made of a density; ingest the crystal with its image,"
            " or choose a model or encoder of another recipe"
        )
    # A deformation density made of free atoms has a level of theory of its own: only models of that level take it.
    options = IngestOptions(
        recipes=tuple(recipes),
        texts="compute" if texts else "none",
        level_of_theory=files.level_of_theory,
        derive_deformation=bool(recipes),
    )
    prepared = prepare_files(files.structure, files.density, reference=files.reference, options=options)
    if prepared.data is None:
        raise InputError(_named(prepared.source_id, prepared.rejected or prepared.deferred or "cannot be used"))
    return prepared.data, tuple(_named(prepared.source_id, problem) for problem in prepared.problems)


@contextmanager
def warnings_on_error(warnings: Sequence[str]) -> Iterator[None]:
    """Attach warnings to an error that ends the work, as its notes: they often explain it.

    Parameters
    ----------
    warnings
        Read when the error is raised.
    """
    try:
        yield
    except EcdregError as error:
        for warning in warnings:
            error.add_note(warning)
        raise


def _named(name: str, message: str) -> str:
    # The message of a reader begins with the name of the file, or its whole path.
    return message if f"/{message}".partition(":")[0].endswith(f"/{name}") else f"{name}: {message}"
