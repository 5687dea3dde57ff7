"""Files of a crystal that is not in the registry, through the same pipeline as an ingest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cli import output

if TYPE_CHECKING:
    from registry.crystals import CrystalData

__all__ = ["read_crystal"]


def read_crystal(
    structure: Path | None,
    density: Path | None,
    *,
    reference: Path | None,
    level_of_theory: str | None,
    recipes: tuple[str, ...],
    texts: bool,
) -> CrystalData:
    """The crystal in the files, with slices and texts; warns of what could not be used.

    Parameters
    ----------
    structure, density, reference
        As the options of the same names.
    level_of_theory
        Of a density whose file does not say its own.
    recipes
        Slices to make.
    texts
        Whether texts are needed, which takes robocrystallographer.

    Raises
    ------
    IncompatibleInputError
        If slices are asked for that no density gives.
    InputError
        If the files hold no crystal that can be used.
    """
    from ingest.prepare import IMPORTED, IngestOptions, prepare_files
    from registry.errors import IncompatibleInputError, InputError

    if IMPORTED in recipes:
        raise IncompatibleInputError(
            "images that were rendered elsewhere cannot be made of a density; ingest the crystal with its image,"
            " or choose what reads another recipe"
        )
    # A deformation density made of free atoms has a level of theory of its own: only what was trained on such takes it.
    options = IngestOptions(
        recipes=recipes,
        texts="compute" if texts else "none",
        level_of_theory=level_of_theory,
        derive_deformation=bool(recipes),
    )
    prepared = prepare_files(structure, density, reference=reference, options=options)
    if prepared.data is None:
        raise InputError(_of(prepared.source_id, prepared.rejected or prepared.deferred or "cannot be used"))
    for problem in prepared.problems:
        output.warn(_of(prepared.source_id, problem))
    return prepared.data


def _of(name: str, message: str) -> str:
    # What a reader raises begins with the file, or its whole path.
    return message if f"/{message}".partition(":")[0].endswith(f"/{name}") else f"{name}: {message}"
