"""The charge densities of a crystal, as a density tower reads them: every kind on one grid, with the atoms in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.orm import Session

from registry.crystals import CrystalData, DensityData
from registry.errors import IncompatibleInputError, NotFoundError
from registry.files.grids import GridStore
from registry.properties import FREE_ATOMS

__all__ = ["DENSITY_KINDS", "DensityFiles", "DensityGrids", "grids_of", "load_densities"]

DENSITY_KINDS = ("total", "deformation")
"""The density kinds that a density tower reads: of one level of theory, or a total density with the deformation density
that free atoms make of it."""


@dataclass(frozen=True)
class DensityFiles:
    """Where the densities of one crystal lie in the grid store, kind by kind of :data:`DENSITY_KINDS`."""

    level_of_theory: str
    """Of the deformation density, which tells that of the total one: see :data:`registry.properties.FREE_ATOMS`."""
    uris: tuple[str, ...]
    sha256s: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Checksum of all kinds together, as embeddings record it."""
        return hashlib.sha256("".join(self.sha256s).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class DensityGrids:
    """The densities of one crystal, as a density backbone reads them."""

    values: Mapping[str, NDArray[np.floating[Any]]]
    """By kind: (n1, n2, n3) along the lattice vectors [e/Å^3]."""
    lattice: NDArray[np.float64]
    """(3, 3), lattice vectors as rows [Å]."""
    structure: Mapping[str, Any]
    """pymatgen ``Structure.as_dict()``: the atoms in the grids' cell."""


def load_densities(
    session: Session, grids: GridStore, revision_ids: Sequence[int], files: Sequence[DensityFiles | None]
) -> Iterator[DensityGrids]:
    """Densities with their atoms, one crystal at a time, in the order of ``revision_ids``.

    Parameters
    ----------
    session
        Only read.
    grids
        Where the grids lie.
    revision_ids, files
        Aligned, as :class:`Inputs` has them.

    Raises
    ------
    NotFoundError
        If a crystal has no densities of all of :data:`DENSITY_KINDS`, or no structure.
    ArtifactError
        If a grid is missing or does not match its checksum.
    IncompatibleInputError
        If the kinds of one crystal lie on different cells.
    """
    structures: dict[int, dict[str, Any] | None] = dict(
        session.execute(
            text(
                "SELECT r.id, coalesce((SELECT d.structure FROM densities d WHERE d.revision_id = r.id AND"
                " d.kind = :kind AND d.level_of_theory = levels.name), r.structure)"
                " FROM crystal_revisions r JOIN unnest(:ids, :levels) AS levels (id, name) ON levels.id = r.id"
            ).bindparams(
                bindparam("kind", "deformation"),
                bindparam("ids", [int(i) for i in revision_ids], ARRAY(BIGINT)),
                bindparam("levels", ["" if f is None else f.level_of_theory for f in files], ARRAY(Text)),
            )
        ).all()
    )
    for revision_id, found in zip(revision_ids, files, strict=True):
        structure = structures.get(int(revision_id))
        if found is None or structure is None:
            raise NotFoundError(
                f"revision {int(revision_id)} has no {' and '.join(DENSITY_KINDS)} density with a structure; ingest"
                " the crystal with its densities"
            )
        read = [grids.get(uri, sha256) for uri, sha256 in zip(found.uris, found.sha256s, strict=True)]
        lattice = read[0][1]
        if any(not np.allclose(other, lattice, atol=1e-6) for _, other in read):
            raise IncompatibleInputError(
                f"the densities of revision {int(revision_id)} lie on different cells; ingest them from one calculation"
            )
        values = {kind: grid for kind, (grid, _) in zip(DENSITY_KINDS, read, strict=True)}
        yield DensityGrids(values, lattice, structure)


def grids_of(crystal: CrystalData, levels: Sequence[str] | None = None) -> DensityGrids | None:
    """The densities of a crystal that was only just read from files; None where it has no such ones.

    Parameters
    ----------
    crystal
        As ``ingest.preparation`` made it.
    levels
        Levels of theory of the deformation density that will do, the best first; None: any, of which the first is
        taken.
    """
    found: dict[str, dict[str, DensityData]] = {}
    for density in crystal.densities:
        found.setdefault(density.kind, {})[density.level_of_theory] = density
    totals, deformations = (found.get(kind, {}) for kind in DENSITY_KINDS)
    for level in deformations if levels is None else levels:
        total = totals.get(level.removesuffix(FREE_ATOMS))
        if total is None or level not in deformations:
            continue
        structure = total.structure or crystal.structure
        if structure is not None:
            values = {"total": total.values, "deformation": deformations[level].values}
            return DensityGrids(values, total.lattice, structure)
    return None
