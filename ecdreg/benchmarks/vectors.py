"""Synthetic registries for benchmarks: a temporary database with clustered random vectors.

Isotropic random vectors have no near neighbours, so the vectors are clustered: there is one normal centre for each 100
vectors. Around a centre, vectors vary along 16 directions that all clusters share, and a little along all others.
Queries are drawn in the same way, and differ from the vectors.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, create_engine, text

from registry.postgres.schema import upgrade
from registry.properties import DEFAULT_COLOUR

__all__ = ["ENCODER", "Clusters", "fill", "temporary_database"]

ENCODER = "bench"
"""Name of the encoder of the vectors, which is the default encoder."""

_SHA = "0" * 64
_CHUNK = 50_000


class Clusters:
    """Random generator of clustered vectors.

    Parameters
    ----------
    rows
        Number of vectors, which defines the number of clusters.
    dim
        Length of the vectors.
    seed
        Seed of the generator.
    """

    def __init__(self, rows: int, dim: int, *, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._centres = self._random.standard_normal((max(1, rows // 100), dim), dtype=np.float32)
        self._directions = self._random.standard_normal((16, dim), dtype=np.float32) / 4

    def draw(self, n: int) -> NDArray[np.float32]:
        """The next vectors, shape (n, dim)."""
        drawn = self._centres[self._random.integers(len(self._centres), size=n)]
        drawn += 0.5 * self._random.standard_normal((n, 16), dtype=np.float32) @ self._directions
        drawn += 0.1 * self._random.standard_normal(drawn.shape, dtype=np.float32)
        return np.asarray(drawn)


@contextmanager
def temporary_database(engine: Engine) -> Iterator[Engine]:
    """An empty registry on the same server, which is dropped at the end.

    Parameters
    ----------
    engine
        Engine of any database of the server.
    """
    name = f"ecdreg_bench_{os.getpid()}_{secrets.token_hex(3)}"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
    bench = create_engine(engine.url.set(database=name), use_native_hstore=False)
    try:
        upgrade(bench)
        yield bench
    finally:
        bench.dispose()
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


def fill(
    engine: Engine, rows: int, dim: int, queries: int, *, seed: int = 0, keep: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Write crystals with clustered vectors to an empty registry; the crystal with ``source_id`` i has the i-th vector.

    Parameters
    ----------
    engine
        The registry.
    rows, dim
        Number of vectors, and their length.
    queries
        Number of queries, which are drawn after the vectors.
    seed
        Seed of the random generator.
    keep
        False: return an empty array instead of the vectors, to save memory.

    Returns
    -------
    vectors, queries
        Shapes (rows, dim) and (queries, dim).
    """
    from pgvector import Vector
    from pgvector.psycopg import register_vector

    clusters = Clusters(rows, dim, seed=seed)
    kept = []
    with engine.begin() as connection:
        encoder = _insert_crystals(connection, rows, dim)
        driver = connection.connection.driver_connection
        assert driver is not None, "a connection in use has a driver connection"
        register_vector(driver)
        [(first,)] = connection.execute(text("SELECT min(id) FROM crystal_revisions")).all()
        with (
            driver.cursor() as cursor,
            cursor.copy(
                "COPY embeddings (encoder_id, revision_id, dim, embedding, input_sha256)"
                " FROM STDIN WITH (FORMAT BINARY)"
            ) as copy,
        ):
            copy.set_types(["int8", "int8", "int4", "vector", "text"])
            for start in range(0, rows, _CHUNK):
                drawn = clusters.draw(min(_CHUNK, rows - start))
                for i, vector in enumerate(drawn, start=first + start):
                    copy.write_row((encoder, i, dim, Vector(vector), _SHA))
                if keep:
                    kept.append(drawn)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
    return np.concatenate(kept) if kept else np.empty((0, dim), np.float32), clusters.draw(queries)


def _insert_crystals(connection: Connection, rows: int, dim: int) -> int:
    """Insert crystals with one property value, and the encoder; return the id of the encoder."""
    run = connection.scalar(
        text(
            "INSERT INTO ingest_runs (source, parameters, code_version, status, finished_at)"
            " VALUES ('bench', '{}', 'bench', 'finished', now()) RETURNING id"
        )
    )
    for sql in (
        "INSERT INTO crystals (source, source_id, material_key)"
        " SELECT 'bench', i, i FROM generate_series(0, :rows - 1) i ORDER BY i",
        "INSERT INTO crystal_revisions (crystal_id, n, is_current, content_sha256, run_id, formula, chemsys, elements)"
        " SELECT id, 1, true, :sha, :run, 'Na', 'Na', '{Na}' FROM crystals ORDER BY id",
        "INSERT INTO property_values (revision_id, property, level_of_theory, value)"
        " SELECT id, :property, 'GGA', 1 + id % 500 FROM crystal_revisions",
    ):
        given = {"rows": rows, "sha": _SHA, "run": run, "property": DEFAULT_COLOUR}
        values = {name: value for name, value in given.items() if f":{name}" in sql}
        connection.execute(text(sql), values)
    encoder = connection.scalar(
        text(
            "INSERT INTO encoders (name, modality, dim, weights_sha256, preprocessing, preprocessing_sha256)"
            " VALUES (:name, 'image', :dim, :sha, '{}', :sha) RETURNING id"
        ),
        {"name": ENCODER, "dim": dim, "sha": _SHA},
    )
    connection.execute(text("INSERT INTO encoder_aliases VALUES ('default', :encoder)"), {"encoder": encoder})
    assert encoder is not None
    return int(encoder)
