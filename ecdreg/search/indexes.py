"""Vector indexes: show, build and drop the HNSW indexes of encoders."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from ecdreg.results import Results
from registry.errors import ConfigurationError
from registry.jobs.progress import Progress, Silent
from registry.search import indexes
from registry.search.indexes import BuildOptions, VectorIndex

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection

__all__ = ["VectorIndex", "build_indexes", "drop_indexes", "index_status"]


def index_status(
    registry: RegistryConnection, encoder: str | None = None, *, metric: str | None = None
) -> Results[VectorIndex]:
    """List the encoders with their vectors and indexes.

    Without an index every vector is compared: the answer is exact, and fast up to some ten thousand vectors. The state
    ``offered`` means that an index would make searches faster.

    Parameters
    ----------
    registry
        An open registry; only read.
    encoder
        Only this one (name or alias).
    metric
        Only this one: ``cosine``, ``l2`` or ``inner_product``.

    Raises
    ------
    NotFoundError
        If there is no such encoder.
    ConfigurationError
        If there is no such metric.
    """
    with Session(registry.engine) as session:
        rows = indexes.index_status(session, encoder, metric)
    offered = dict.fromkeys(str(row.encoder) for row in rows if row.state in ("offered", "invalid"))
    notes = (f"`ecdreg index build` makes those of {', '.join(offered)}",) if offered else ()
    return Results(tuple(rows), notes)


def build_indexes(
    registry: RegistryConnection,
    encoder: str | None = None,
    *,
    metric: str = "cosine",
    m: int = 16,
    ef_construction: int = 128,
    memory_mb: int | None = None,
    workers: int | None = None,
    online: bool = False,
    rebuild: bool = False,
    progress: Progress | None = None,
) -> Results[VectorIndex]:
    """Build the HNSW index of an encoder, or of every encoder that has many vectors.

    Parameters
    ----------
    registry
        An open registry.
    encoder
        Name or alias; None: every encoder with enough vectors for an index.
    metric
        Distance to index: ``cosine``, ``l2`` or ``inner_product``.
    m
        Neighbours of a node of the graph, 2 to 100.
    ef_construction
        Candidates for the neighbours of each node, 2 ``m`` to 1000.
    memory_mb
        Memory for the graph while it is built [MB]; None: what it needs, if free.
    workers
        Parallel workers; None: the choice of the server.
    online
        Whether others can write during the build, which takes longer.
    rebuild
        Whether an existing index is built anew.
    progress
        Receives each encoder.

    Returns
    -------
    Results of VectorIndex
        The indexes, whether they were built or existed.

    Raises
    ------
    NotFoundError
        If there is no such encoder, or it has no vectors.
    ConfigurationError
        If there is no such metric, or an option is out of range.
    QueryError
        If half precision cannot represent the vectors; searches stay exact.
    DatabaseError
        If the server cannot build it, as without memory or rights.
    """
    options = BuildOptions(m, ef_construction, memory_mb, workers, online, rebuild)
    progress = progress or Silent()
    if encoder is not None:
        names = [encoder]
    else:
        with Session(registry.engine) as session:
            names = indexes.encoders_worth_an_index(session)
    rows, notes = [], []
    for name in names:
        progress.begin(f"building the index of {name} for {metric}")
        start = time.perf_counter()
        rows.append(indexes.build_index(registry.engine, name, metric, options, embedded=registry.settings.embedded))
        notes.append(f"index of {name} for {metric}: {time.perf_counter() - start:.1f} s")
        progress.end()
    if not rows:
        notes.append("no encoder has enough vectors for an index; name one to build it nevertheless")
    return Results(tuple(rows), tuple(notes))


def drop_indexes(
    registry: RegistryConnection, encoder: str | None = None, *, metric: str | None = None, all_encoders: bool = False
) -> Results[VectorIndex]:
    """Drop the indexes of an encoder, or of all encoders; searches compare every vector then.

    Parameters
    ----------
    registry
        An open registry.
    encoder
        Name or alias.
    metric
        Only the indexes of this metric.
    all_encoders
        Drop those of every encoder, and of encoders that do not exist any more; instead of ``encoder``.

    Returns
    -------
    Results of VectorIndex
        The indexes that were dropped.

    Raises
    ------
    ConfigurationError
        If neither or both of ``encoder`` and ``all_encoders`` are given, or there is no such metric.
    NotFoundError
        If there is no such encoder.
    """
    if (encoder is None) != all_encoders:
        raise ConfigurationError("give the name of an encoder, or all encoders, and not both")
    dropped = indexes.drop_indexes(registry.engine, encoder, metric)
    return Results(tuple(dropped), () if dropped else ("there is no such index",))
