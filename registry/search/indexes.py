"""HNSW indexes of embeddings: one for each encoder and metric, for encoders with many vectors.

Encoders differ in their dimension, and a shared index would find few neighbours of the smaller ones. Each encoder has
its own partial index, of half precision: ``USING hnsw ((embedding::halfvec(N)) halfvec_cosine_ops) WHERE encoder_id =
K``. The SQL functions find it by its name and compute the distances of its candidates again in full precision
(``registry/postgres/sql/search.sql``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import psutil
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
"""Number of vectors of an encoder from which an index is proposed; an exact search takes about 10 ms there."""

_OPERATOR_CLASSES = {"cosine": "halfvec_cosine_ops", "l2": "halfvec_l2_ops", "inner_product": "halfvec_ip_ops"}
_LARGEST_DIM = 4000  # of halfvec in an index
_SHORTEST, _LONGEST = 1e-3, 65_000.0  # lengths of vectors that half precision represents well
_DEFAULT_MEMORY_MB = 1024


@dataclass(frozen=True)
class BuildOptions:
    """Options of the construction of an index."""

    m: int = 16
    """Neighbours of a node of the graph."""
    ef_construction: int = 128
    """Candidates examined for each node; more give a higher recall and take longer."""
    memory_mb: int | None = None
    """Memory for the graph during construction [MB]; None: as much as it needs, at most half of this machine's
    available memory for the embedded database, at most 1 GB elsewhere."""
    workers: int | None = None
    """Parallel workers; None: the default of the server."""
    online: bool = False
    """Allow writes of other sessions meanwhile (``CREATE INDEX CONCURRENTLY``); takes longer."""
    rebuild: bool = False
    """Build it again where it exists."""


@dataclass(frozen=True)
class VectorIndex:
    """Vectors of an encoder and their index."""

    encoder: str | None
    """None: the encoder was removed, and its index is empty."""
    dim: int | None
    vectors: int
    metric: str | None
    """None: no index."""
    state: str
    """``ready``; ``invalid`` (an interrupted build); ``offered`` (many vectors and no index); ``not needed``;
    ``encoder is gone``."""
    megabytes: float | None
    """Size of the index [MB = 2^20 bytes]."""
    name: str | None


def index_status(session: Session, encoder: str | None = None, metric: str | None = None) -> list[VectorIndex]:
    """All encoders with their indexes, or without one; and indexes of encoders that were removed.

    Parameters
    ----------
    encoder
        Only this one (name or alias).
    metric
        Only this metric.

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
    """One line that proposes an index; None where there is one, or the vectors are too few.

    Parameters
    ----------
    encoder
        Encoder of the search.
    metric
        The metric of the search.
    """
    if encoder.dim > _LARGEST_DIM or _is_valid(session.connection(), _name(encoder.id, metric)):
        return None
    # Only whether there are this many: the query reads this many rows of an index, whatever the size of the table.
    many = session.scalar(
        text("SELECT true FROM embeddings WHERE encoder_id = :encoder OFFSET :rows LIMIT 1"),
        {"encoder": encoder.id, "rows": INDEX_ROWS - 1},
    )
    if not many:
        return None
    option = "" if metric == "cosine" else f" --metric {metric}"
    return (
        f"encoder {encoder.name} has {INDEX_ROWS:,} vectors or more, and this search compared all of them;"
        f" `ecdreg index build {encoder.name}{option}` makes it faster"
    )


def encoders_worth_an_index(session: Session) -> list[str]:
    """Names of the encoders with many vectors, of a dimension that an index supports, and no valid index."""
    return [row.encoder for row in index_status(session) if row.encoder and row.state in ("offered", "invalid")]


def build_index(
    engine: Engine, encoder: str, metric: str = "cosine", options: BuildOptions | None = None, *, embedded: bool = False
) -> VectorIndex:
    """Build the HNSW index of an encoder for a metric; an existing one is kept.

    Parameters
    ----------
    encoder
        Name or alias.
    metric
        cosine, l2 or inner_product.
    options
        Options of the construction.
    embedded
        Whether the server runs on this machine, so that its available memory can be measured.

    Raises
    ------
    NotFoundError
        If there is no such encoder, or it has no vectors.
    ConfigurationError
        If there is no such metric, or an option is out of range.
    QueryError
        If half precision cannot represent its vectors; searches stay exact.
    DatabaseError
        If the server cannot build it, for example without enough memory or rights.
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
                connection.invalidate()  # discards its settings
    with Session(engine) as session:
        return next(row for row in index_status(session, label, metric) if row.name == name)


def drop_indexes(engine: Engine, encoder: str | None = None, metric: str | None = None) -> list[VectorIndex]:
    """Drop indexes; searches are exact afterwards.

    Parameters
    ----------
    encoder
        Only that of this encoder (name or alias); None: all, and those of removed encoders.
    metric
        For this metric only.

    Returns
    -------
    list of VectorIndex
        The dropped indexes.

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
    """Number of vectors of an encoder, after a check that half precision can represent all of them."""
    if encoder.dim > _LARGEST_DIM:
        raise QueryError(
            f"vectors of encoder {encoder.name!r} have {encoder.dim} dimensions, an index supports {_LARGEST_DIM}"
            " at most; searches stay exact"
        )
    vectors, shortest, longest = session.execute(
        text(
            "SELECT count(*), min(vector_norm(embedding)), max(vector_norm(embedding))"
            " FROM embeddings WHERE encoder_id = :encoder"
        ),
        {"encoder": encoder.id},
    ).one()
    if not vectors:
        raise NotFoundError(f"encoder {encoder.name!r} has no vectors to index; see `ecdreg encoders list`")
    if shortest < _SHORTEST or longest > _LONGEST:
        raise QueryError(
            f"vectors of encoder {encoder.name!r} have lengths of {shortest:.3g} to {longest:.3g}, and half precision"
            f" represents {_SHORTEST:g} to {_LONGEST:g}; searches stay exact"
        )
    return int(vectors)


def _memory_mb(vectors: int, dim: int, m: int, *, embedded: bool) -> int:
    """maintenance_work_mem [MB] for the graph: vectors of half precision and lists of neighbours."""
    needed = int(1.15 * vectors * (2 * dim + 32 * m + 256)) // 2**20 + 64
    return min(needed, max(256, psutil.virtual_memory().available // 2**21) if embedded else _DEFAULT_MEMORY_MB)
