"""Comparison of deformation densities from the tables of free atoms with calculated ones."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ingest.free_atoms.subtraction import deformation
from ingest.sources.base import CrystalSource, SourceRecord
from registry.errors import InputError
from registry.jobs.progress import Progress

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["DensityComparison", "compare", "compare_source", "summarize"]

RECIPE = "metric"
_MIN_POINTS = 50


@dataclass(frozen=True)
class DensityComparison:
    """Comparison of the derived with the calculated deformation density of one crystal.

    Relative errors: the norm of the difference over the grid points, divided by the norm of the
    calculated density; ``l1`` with absolute values, ``l2`` with squares.
    """

    source_id: str
    formula: str
    prototype: str
    correlation: float
    """Pearson correlation over all points of the cell."""
    l1: float
    l2: float
    interstitial_correlation: float | None
    """Pearson correlation outside of spheres around the atoms; None with fewer than 50 points there."""
    interstitial_l1: float | None
    interstitial_l2: float | None
    image_correlation: float
    """Pearson correlation over the pixels of the deformation channel of the recipe ``metric``."""


def compare(record: SourceRecord, *, outside: float = 1.0) -> DensityComparison:
    """Derive a crystal's deformation density and compare it with the calculated one.

    Parameters
    ----------
    record
        Record of a crystal with a total and a deformation density.
    outside
        Radius of the spheres around the atoms; the space outside is interstitial [Å].

    Raises
    ------
    InputError
        If one of the densities is missing, or free atoms cannot be subtracted.
    """
    from ingest.slices.recipes import RECIPES
    from ingest.slices.space_groups import space_group

    raw = record.read()
    structure = raw.density_structure
    densities = {density.kind: density for density in raw.densities}
    if structure is None or not {"total", "deformation"} <= densities.keys():
        raise InputError(f"{record.source_id} has no total and deformation density to compare")
    derived = deformation(densities["total"], structure)
    own = np.asarray(densities["deformation"].values, dtype=np.float64)
    outside_spheres = distances(structure, own.shape) > outside
    images = [
        RECIPES[RECIPE].render({**densities, "deformation": density}, structure)[1]
        for density in (derived, densities["deformation"])
    ]
    enough_points = outside_spheres.sum() >= _MIN_POINTS
    cell = _errors(derived.values, own)
    interstitial = (
        _errors(derived.values[outside_spheres], own[outside_spheres]) if enough_points else (None, None, None)
    )
    return DensityComparison(
        source_id=record.source_id,
        formula=str(structure.composition.reduced_formula),
        prototype=space_group(structure).prototype,
        correlation=cell[0],
        l1=cell[1],
        l2=cell[2],
        interstitial_correlation=interstitial[0],
        interstitial_l1=interstitial[1],
        interstitial_l2=interstitial[2],
        image_correlation=_errors(*images)[0],
    )


def compare_source(
    source: CrystalSource,
    progress: Progress,
    *,
    outside: float = 1.0,
    limit: int | None = None,
    every: int = 1,
    rest: bool = False,
) -> Iterator[DensityComparison | str]:
    """Apply :func:`compare` to the crystals of a source; yield the reason for a crystal that cannot be compared.

    Parameters
    ----------
    source
        Source of the crystals.
    progress
        Receives the progress.
    outside
        Radius of the spheres, as in :func:`compare` [Å].
    limit
        Maximum number of crystals.
    every
        Select every n-th crystal, in their order.
    rest
        Select all other crystals instead.
    """
    records = [record for place, record in enumerate(source.records()) if (place % every == 0) is not rest][:limit]
    progress.begin("comparing", len(records))
    for record in records:
        with warnings.catch_warnings():
            # pymatgen warns of every noble gas when it orders the elements of a formula.
            warnings.filterwarnings("ignore", message="No Pauling electronegativity")
            found = _attempt(record, outside)
        yield found
        progress.advance()
    progress.end()


def summarize(comparisons: list[DensityComparison]) -> list[dict[str, Any]]:
    """Medians and worst values per prototype, sorted by number of crystals, and over all crystals."""
    groups: dict[str, list[DensityComparison]] = {}
    for comparison in comparisons:
        groups.setdefault(comparison.prototype, []).append(comparison)
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    return [_summary(name, members) for name, members in [*ordered, ("all", comparisons)] if members]


def distances(structure: Structure, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Distance from each grid point to the nearest atom, periodic images included [Å]."""
    axes = [np.arange(points) / points for points in shape]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    nearest: NDArray[np.float64] = structure.lattice.get_all_distances(points, structure.frac_coords).min(axis=1)
    return nearest.reshape(shape)


def _attempt(record: SourceRecord, outside: float) -> DensityComparison | str:
    try:
        return compare(record, outside=outside)
    except InputError as error:
        return f"{record.source_id}: {' '.join(str(error).split())}"


def _errors(derived: NDArray[Any], own: NDArray[Any]) -> tuple[float, float, float]:
    difference = np.asarray(derived, dtype=np.float64) - own
    correlation = float(np.corrcoef(np.ravel(derived), np.ravel(own))[0, 1])
    l1 = float(np.abs(difference).sum() / np.abs(own).sum())
    return correlation, l1, float(np.sqrt((difference**2).sum() / (np.asarray(own, dtype=np.float64) ** 2).sum()))


def _summary(name: str, members: list[DensityComparison]) -> dict[str, Any]:
    def values(field: str) -> list[float]:
        return [value for member in members if (value := getattr(member, field)) is not None]

    row: dict[str, Any] = {"prototype": name, "crystals": len(members)}
    for field, worst in (
        ("correlation", min),
        ("l1", max),
        ("l2", max),
        ("interstitial_correlation", min),
        ("interstitial_l1", max),
        ("interstitial_l2", max),
        ("image_correlation", min),
    ):
        found = values(field)
        row[field] = float(np.median(found)) if found else None
        row[f"worst_{field}"] = float(worst(found)) if found else None
    return row
