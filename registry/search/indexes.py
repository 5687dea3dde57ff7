"""HNSW indexes of embeddings: one an encoder and metric, made when its vectors are many.

Encoders differ in their dimension, and in an index that they shared the smaller ones would starve, so
each has a partial index of its own, of half precision: ``USING hnsw ((embedding::halfvec(N))
halfvec_cosine_ops) WHERE encoder_id = K``. The SQL functions find it by its name and compare what it
proposes again in full precision (``registry/postgres/sql/search.sql``).
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from registry.encoders import resolve_encoder
from registry.errors import ConfigurationError, DatabaseError, NotFoundError, QueryError
from registry.models import Encoder
from registry.search.vectors import METRICS

__all__ = [
    "INDEX_ROWS",
    "BuildOptions",
    "VectorIndex",
    "build_index",
    "drop_indexes",
    "encoders_worth_an_index",
    "index_advice",
    "index_status",
]

INDEX_ROWS = 20_000
"""Vectors of an encoder from which on an index is offered; exact search takes some 10 ms there."""

_OPERATOR_CLASSES = {"cosine": "halfvec_cosine_ops", "l2": "halfvec_l2_ops", "inner_product": "halfvec_ip_ops"}
_LARGEST_DIM = 4000  # of halfvec in an index
_SHORTEST, _LONGEST = 1e-3, 65_000.0  # lengths of vectors that half precision holds well
_DEFAULT_MEMORY_MB = 1024


@dataclass(frozen=True)
class BuildOptions:
    """How an index is built."""

    m: int = 16
    """Neighbours of a node of the graph."""
    ef_construction: int = 128
    """Candidates looked at for each; more find more, and take longer."""
    memory_mb: int | None = None
    """For the graph while it is built; None: what it needs, at most half of this machine's available memory for the
    embedded database, 1 GB elsewhere."""
    workers: int | None = None
    """Parallel workers; None: the server's own choice."""
    online: bool = False
    """Let others write meanwhile (``CREATE INDEX CONCURRENTLY``); takes longer."""
    rebuild: bool = False
    """Build it anew where it is there."""


@dataclass(frozen=True)
class VectorIndex:
    """Vectors of an encoder, and an index of them."""

    encoder: str | None
    """None: the encoder is gone, and its index empty."""
    dim: int | None
    vectors: int
    metric: str | None
    """None: no index."""
    state: str
    """``ready``; ``invalid`` (a build that was cut off); ``offered`` (many vectors and no index); ``not needed``."""
    megabytes: float | None
    """Size of the index [MB = 2^20 bytes]."""
    name: str | None


def index_status(session: Session, encoder: str | None = None, metric: str | None = None) -> list[VectorIndex]:
    """Every encoder with its indexes, or without one; and indexes whose encoder is gone.

    Parameters
    ----------
    encoder
        Only of this one (name or alias).
    metric
        Only of this metric.

    Raises
    ------
    NotFoundError
        If there is no such encoder.
    ConfigurationError
        If there is no such metric.
    """
    wanted = None if encoder is None else resolve_encoder(session, encoder).id
    if metric is not None:
        _check_metric(metric)
    indexes: dict[int, list[tuple[str, str, bool, int]]] = {}
    for name, valid, size in session.execute(
        text(
            "SELECT i.relname, x.indisvalid, pg_relation_size(i.oid) FROM pg_index x"
            " JOIN pg_class i ON i.oid = x.indexrelid"
            " WHERE x.indrelid = 'embeddings'::regclass AND i.relname ~ '^ix_embeddings_hnsw_' ORDER BY i.relname"
        )
    ):
        parsed = re.fullmatch(r"ix_embeddings_hnsw_(\d+)_(cosine|l2|inner_product)", name)
        if parsed and (metric is None or parsed[2] == metric):
            indexes.setdefault(int(parsed[1]), []).append((parsed[2], name, valid, size))
    rows = []
    counts = session.execute(
        text(
            "SELECT e.id, e.name, e.dim, (SELECT count(*) FROM embeddings v WHERE v.encoder_id = e.id)"
            " FROM encoders e WHERE e.id = :wanted OR CAST(:wanted AS bigint) IS NULL ORDER BY e.name"
        ),
        {"wanted": wanted},
    )
    for encoder_id, encoder_name, dim, vectors in counts:
        found = indexes.pop(encoder_id, [])
        rows += [
            VectorIndex(encoder_name, dim, vectors, of, "ready" if valid else "invalid", size / 2**20, name)
            for of, name, valid, size in found
        ]
        if not found:
            state = "offered" if vectors >= INDEX_ROWS and dim <= _LARGEST_DIM else "not needed"
            rows.append(VectorIndex(encoder_name, dim, vectors, None, state, None, None))
    if wanted is None:
        rows += [
            VectorIndex(None, None, 0, of, "encoder is gone", size / 2**20, name)
            for found in indexes.values()
            for of, name, _, size in found
        ]
    return rows


def index_advice(session: Session, encoder: Encoder, metric: str = "cosine") -> str | None:
    """One line that offers an index; None where there is one, or the vectors are too few to need it.

    Parameters
    ----------
    encoder
        What was searched with.
    metric
        The metric of the search.
    """
    if encoder.dim > _LARGEST_DIM or _is_valid(session.connection(), _name(encoder.id, metric)):
        return None
    # Only whether so many are there: that many rows of an index, however many the table has.
    many = session.scalar(
        text("SELECT true FROM embeddings WHERE encoder_id = :encoder OFFSET :rows LIMIT 1"),
        {"encoder": encoder.id, "rows": INDEX_ROWS - 1},
    )
    if not many:
        return None
    option = "" if metric == "cosine" else f" --metric {metric}"
    return (
        f"encoder {encoder.name} has {INDEX_ROWS:,} vectors or more, all of which this search compared;"
        f" `ecdreg index build {encoder.name}{option}` makes it quicker"
    )


def encoders_worth_an_index(session: Session) -> list[str]:
    """Names of the encoders whose vectors are many, and fit an index."""
    return [row.encoder for row in index_status(session) if row.encoder and row.state in ("offered", "invalid")]


def build_index(
    engine: Engine, encoder: str, metric: str = "cosine", options: BuildOptions | None = None, *, embedded: bool = False
) -> VectorIndex:
    """Build the HNSW index of an encoder for a metric; one that is there stays as it is.

    Parameters
    ----------
    encoder
        Name or alias.
    metric
        cosine, l2 or inner_product.
    options
        How it is built.
    embedded
        Whether the server runs on this machine, so that its free memory can be looked at.

    Raises
    ------
    NotFoundError
        If there is no such encoder, or it has no vectors.
    ConfigurationError
        If there is no such metric, or an option is out of range.
    QueryError
        If half precision cannot hold its vectors; searches stay exact.
    DatabaseError
        If the server cannot build it, as without memory or rights.
    """
    options = options or BuildOptions()
    _check_metric(metric)
    if not (2 <= options.m <= 100 and max(4, 2 * options.m) <= options.ef_construction <= 1000):
        raise ConfigurationError(
            f"m is {options.m} and ef_construction {options.ef_construction}; give 2 to 100, and 2 m to 1000"
        )
    with Session(engine) as session:
        chosen = resolve_encoder(session, encoder)
        name, dim, label = _name(chosen.id, metric), chosen.dim, chosen.name
        vectors = _check_vectors(session, chosen)
        there = _is_valid(session.connection(), name)
    if there is None or not there or options.rebuild:
        memory = options.memory_mb or _memory_mb(vectors, dim, options.m, embedded=embedded)
        online = " CONCURRENTLY" if options.online else ""
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            try:
                connection.execute(text("SELECT set_config('maintenance_work_mem', :m, false)"), {"m": f"{memory}MB"})
                if options.workers is not None:
                    connection.execute(
                        text("SELECT set_config('max_parallel_maintenance_workers', :w, false)"),
                        {"w": str(options.workers)},
                    )
                if there is not None:
                    connection.execute(text(f"DROP INDEX{online} IF EXISTS {name}"))
                connection.execute(
                    text(
                        f"CREATE INDEX{online} {name} ON embeddings"
                        f" USING hnsw ((CAST(embedding AS halfvec({dim}))) {_OPERATOR_CLASSES[metric]})"
                        f" WITH (m = {options.m}, ef_construction = {options.ef_construction})"
                        f" WHERE encoder_id = {chosen.id}"
                    )
                )
            except DBAPIError as error:
                reason = " ".join(
                    str(getattr(getattr(error.orig, "diag", None), "message_primary", error.orig)).split()
                )
                raise DatabaseError(
                    f"the index of encoder {label!r} for {metric} could not be built: {reason}; searches stay exact"
                ) from error
            finally:
                connection.invalidate()  # its settings go with it
    with Session(engine) as session:
        return next(row for row in index_status(session, label, metric) if row.name == name)


def drop_indexes(engine: Engine, encoder: str | None = None, metric: str | None = None) -> list[VectorIndex]:
    """Drop indexes; searches are exact then.

    Parameters
    ----------
    encoder
        Of this encoder only (name or alias); None: of all, and those whose encoder is gone.
    metric
        For this metric only.

    Returns
    -------
    list of VectorIndex
        What was dropped.

    Raises
    ------
    NotFoundError
        If there is no such encoder.
    ConfigurationError
        If there is no such metric.
    """
    with Session(engine) as session, session.begin():
        found = [row for row in index_status(session, encoder, metric) if row.name is not None]
        for row in found:
            session.execute(text(f"DROP INDEX IF EXISTS {row.name}"))
    return found


def _name(encoder_id: int, metric: str) -> str:
    return f"ix_embeddings_hnsw_{encoder_id}_{metric}"


def _check_metric(metric: str) -> None:
    if metric not in METRICS:
        raise ConfigurationError(f"no metric {metric!r}; there are: {', '.join(METRICS)}")


def _is_valid(connection: Connection, name: str) -> bool | None:
    """Whether an index can be used; None where there is none."""
    found: bool | None = connection.scalar(
        text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)"), {"name": name}
    )
    return found


def _check_vectors(session: Session, encoder: Encoder) -> int:
    """Number of an encoder's vectors, all of which half precision can hold."""
    if encoder.dim > _LARGEST_DIM:
        raise QueryError(
            f"vectors of encoder {encoder.name!r} have {encoder.dim} dimensions, an index holds {_LARGEST_DIM};"
            " searches stay exact"
        )
    vectors, shortest, longest = session.execute(
        text(
            "SELECT count(*), min(vector_norm(embedding)), max(vector_norm(embedding))"
            " FROM embeddings WHERE encoder_id = :encoder"
        ),
        {"encoder": encoder.id},
    ).one()
    if not vectors:
        raise NotFoundError(f"encoder {encoder.name!r} has no vectors to index; `ecdreg encoders list` counts them")
    if shortest < _SHORTEST or longest > _LONGEST:
        raise QueryError(
            f"vectors of encoder {encoder.name!r} are {shortest:.3g} to {longest:.3g} long, and half precision holds"
            f" {_SHORTEST:g} to {_LONGEST:g}; searches stay exact"
        )
    return int(vectors)


def _memory_mb(vectors: int, dim: int, m: int, *, embedded: bool) -> int:
    """maintenance_work_mem [MB]: the graph of vectors of half precision, with its lists of neighbours."""
    needed = int(1.15 * vectors * (2 * dim + 32 * m + 256)) // 2**20 + 64
    return min(needed, max(256, _available_mb() // 2) if embedded else _DEFAULT_MEMORY_MB)


def _available_mb() -> int:
    """Memory of this machine that can be had [MB], what the cache of files holds included."""
    with suppress(OSError):
        found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="utf-8"))
        if found:
            return int(found[1]) // 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 // 2
