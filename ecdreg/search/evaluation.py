"""Evaluation of similarity search: how alike the neighbours under each encoder are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from ecdreg.results import Results

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection
    from registry.jobs.progress import Progress
    from train.analysis.retrieval import Score

__all__ = ["evaluate_search"]


def evaluate_search(
    registry: RegistryConnection,
    *,
    encoders: Sequence[str] | None = None,
    fused: Sequence[Sequence[str]] = (),
    k: int = 5,
    limit: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Results[Score]:
    """Compare the neighbours of crystals under encoders with those by composition alone, and by chance.

    Encoders that were trained on labels are evaluated on the holdout of their split.

    Parameters
    ----------
    registry
        An open registry; only read.
    encoders
        Names or aliases; None: all that have vectors.
    fused
        Sets of encoders that are fused by their reciprocal ranks, as :func:`ecdreg.search.similarity.similar` does.
    k
        Number of neighbours of each crystal.
    limit
        Number of query crystals at most; more are drawn from at random.
    seed
        Seed of this draw.
    progress
        Receives each encoder.

    Returns
    -------
    Results of Score
        In blocks of equal queries and pools: chance, composition, then the encoders by name; see
        :class:`train.analysis.retrieval.Score`.

    Raises
    ------
    ConfigurationError
        If ``k`` or ``limit`` is less than 1.
    NotFoundError
        If there is no such encoder, or none has vectors.
    """
    from train.analysis import retrieval

    with Session(registry.engine) as session:
        scores = retrieval.evaluate_search(
            session, encoders=encoders, fused=fused, k=k, limit=limit, seed=seed, progress=progress
        )
    return Results(tuple(scores))
