"""How near a deformation density made of the tables comes to one that its source calculated."""

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

__all__ = ["Agreement", "compare", "compare_source", "summarize"]

RECIPE = "metric"
_FEWEST_POINTS = 50


@dataclass(frozen=True)
class Agreement:
    """One crystal: the derived deformation density beside the calculated one.

    Errors are sums over grid points of the difference, as a fraction of that sum for the
    calculated density: ``l1`` of absolute values, ``l2`` the root of squares.
    """

    source_id: str
    formula: str
    prototype: str
    correlation: float
    """Pearson's, over all points of the cell."""
    l1: float
    l2: float
    interstitial_correlation: float | None
    """The same outside of spheres around the atoms; None where no 50 points lie there."""
    interstitial_l1: float | None
    interstitial_l2: float | None
    image_correlation: float
    """Pearson's, over the pixels of the deformation channel of the recipe ``metric``."""


def compare(record: SourceRecord, *, outside: float = 1.0) -> Agreement:
    """Derive a crystal's deformation density and compare it with its own.

    Parameters
    ----------
    record
        A crystal with a total and a deformation density.
    outside
        Radius of the spheres around the atoms that are not interstitial [Å].

    Raises
    ------
    InputError
        If one of the densities is missing, or no free atoms can be subtracted.
    """
    from ingest.slices.recipes import RECIPES
    from ingest.slices.space_groups import space_group

    raw = record.read()
    structure = raw.density_structure
    densities = {density.kind: density for density in raw.densities}
    if structure is None or not {"total", "deformation"} <= densities.keys():
        raise InputError(f"{record.source_id} has no total and deformation density to compare with")
    derived = deformation(densities["total"], structure)
    own = np.asarray(densities["deformation"].values, dtype=np.float64)
    between = distances(structure, own.shape) > outside
    pictures = [
        RECIPES[RECIPE].render({**densities, "deformation": density}, structure)[1]
        for density in (derived, densities["deformation"])
    ]
    some = between.sum() >= _FEWEST_POINTS
    cell = _errors(derived.values, own)
    interstitial = _errors(derived.values[between], own[between]) if some else (None, None, None)
    return Agreement(
        source_id=record.source_id,
        formula=str(structure.composition.reduced_formula),
        prototype=space_group(structure).prototype,
        correlation=cell[0],
        l1=cell[1],
        l2=cell[2],
        interstitial_correlation=interstitial[0],
        interstitial_l1=interstitial[1],
        interstitial_l2=interstitial[2],
        image_correlation=_errors(*pictures)[0],
    )


def compare_source(
    source: CrystalSource,
    progress: Progress,
    *,
    outside: float = 1.0,
    limit: int | None = None,
    every: int = 1,
    rest: bool = False,
) -> Iterator[Agreement | str]:
    """:func:`compare` for the crystals of a source; a line on why for those that cannot be compared.

    Parameters
    ----------
    outside
        As in :func:`compare` [Å].
    limit
        Only the first so many.
    every
        Of the crystals in their order, only each so-manieth.
    rest
        All but those.
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


def summarize(agreements: list[Agreement]) -> list[dict[str, Any]]:
    """Medians and worst values per prototype, the commonest first, and over all crystals."""
    groups: dict[str, list[Agreement]] = {}
    for agreement in agreements:
        groups.setdefault(agreement.prototype, []).append(agreement)
    ordered = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    return [_summary(name, members) for name, members in [*ordered, ("all", agreements)] if members]


def distances(structure: Structure, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Distance from each grid point to the nearest atom, periodic images included [Å]."""
    axes = [np.arange(points) / points for points in shape]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    nearest: NDArray[np.float64] = structure.lattice.get_all_distances(points, structure.frac_coords).min(axis=1)
    return nearest.reshape(shape)


def _attempt(record: SourceRecord, outside: float) -> Agreement | str:
    try:
        return compare(record, outside=outside)
    except InputError as error:
        return f"{record.source_id}: {' '.join(str(error).split())}"


def _errors(derived: NDArray[Any], own: NDArray[Any]) -> tuple[float, float, float]:
    difference = np.asarray(derived, dtype=np.float64) - own
    correlation = float(np.corrcoef(np.ravel(derived), np.ravel(own))[0, 1])
    l1 = float(np.abs(difference).sum() / np.abs(own).sum())
    return correlation, l1, float(np.sqrt((difference**2).sum() / (np.asarray(own, dtype=np.float64) ** 2).sum()))


def _summary(name: str, members: list[Agreement]) -> dict[str, Any]:
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
