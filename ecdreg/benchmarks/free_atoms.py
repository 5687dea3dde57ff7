"""Benchmark of deformation densities from superposed free atoms, with the calculated ones as references."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.jobs.progress import Progress, Silent

if TYPE_CHECKING:
    from ingest.free_atoms.validation import DensityComparison

__all__ = ["FreeAtomBenchmark", "benchmark_free_atoms"]


@dataclass(frozen=True)
class FreeAtomBenchmark:
    """Comparisons of the crystals of a source."""

    comparisons: list[DensityComparison]
    left_out: list[str]
    """One line with the id and the reason for each crystal that cannot be compared."""

    def by_prototype(self) -> list[dict[str, Any]]:
        """Medians and worst values for each prototype, the most frequent first, and for all crystals."""
        from ingest.free_atoms.validation import summarize

        return summarize(self.comparisons)


def benchmark_free_atoms(
    source: str = "sample",
    *,
    outside: float = 1.0,
    every: int = 1,
    rest: bool = False,
    limit: int | None = None,
    progress: Progress | None = None,
) -> FreeAtomBenchmark:
    """Compare deformation densities from free atoms with the calculated ones of a source.

    Parameters
    ----------
    source
        Name of a source or path of a dataset folder, with total and deformation densities.
    outside
        Points at a larger distance from each atom than this are interstitial [Å].
    every
        Compare each ``every``-th crystal, beginning with the first.
    rest
        Compare all crystals except those that ``every`` selects.
    limit
        Largest number of crystals; None: all.
    progress
        Receives the number of compared crystals.

    Raises
    ------
    SourceError
        If the source cannot be read.
    UnknownNameError
        If there is no such source.
    """
    from ingest.free_atoms.validation import DensityComparison, compare_source
    from ingest.sources import open_source

    results = list(
        compare_source(open_source(source), progress or Silent(), outside=outside, limit=limit, every=every, rest=rest)
    )
    return FreeAtomBenchmark(
        comparisons=[result for result in results if isinstance(result, DensityComparison)],
        left_out=[result for result in results if isinstance(result, str)],
    )
