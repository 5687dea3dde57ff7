"""Charge densities of a crystal as inputs of a model: all kinds on one grid, with the structure."""

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
"""Density kinds that a density tower reads: of one level of theory, or a total density and its deformation density with
respect to free atoms."""


@dataclass(frozen=True)
class DensityFiles:
    """Location of the densities of one crystal in the grid store, in the order of :data:`DENSITY_KINDS`."""

    level_of_theory: str
    """Level of theory of the deformation density, which implies that of the total one; see
    :data:`registry.properties.FREE_ATOMS`."""
    uris: tuple[str, ...]
    sha256s: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Checksum of all kinds together, as stored with embeddings."""
        return hashlib.sha256("".join(self.sha256s).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class DensityGrids:
    """Densities of one crystal, as inputs of a density featurizer."""

    values: Mapping[str, NDArray[np.floating[Any]]]
    """Densities by kind, (n1, n2, n3) along the lattice vectors [e/Å^3]."""
    lattice: NDArray[np.float64]
    """(3, 3), lattice vectors as rows [Å]."""
    structure: Mapping[str, Any]
    """Structure in the cell of the grids, as of pymatgen's ``Structure.as_dict()``."""


def load_densities(
    session: Session, grids: GridStore, revision_ids: Sequence[int], files: Sequence[DensityFiles | None]
) -> Iterator[DensityGrids]:
    """Load densities with their structures, one crystal at a time, in the order of ``revision_ids``.

    Parameters
    ----------
    session
        Only read.
    grids
        Store of the grids.
    revision_ids, files
        Aligned, as in :class:`train.features.crystals.CrystalInputs`.

    Raises
    ------
    NotFoundError
        If a crystal has no densities of all of :data:`DENSITY_KINDS`, or no structure.
    ArtifactError
        If a grid is missing or does not match its checksum.
    IncompatibleInputError
        If the kinds of one crystal have different cells.
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
                f"the densities of revision {int(revision_id)} have different cells; ingest them from one calculation"
            )
        values = {kind: grid for kind, (grid, _) in zip(DENSITY_KINDS, read, strict=True)}
        yield DensityGrids(values, lattice, structure)


def grids_of(crystal: CrystalData, levels: Sequence[str] | None = None) -> DensityGrids | None:
    """Densities of a crystal that was read from files; None if it has no suitable ones.

    Parameters
    ----------
    crystal
        From ``ingest.preparation``.
    levels
        Accepted levels of theory of the deformation density, in order of preference; None for the first of any.
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
