"""Measures the search of the registry: recall, latency, filters, and the time of an index.

Everything goes through the SQL functions that a person uses, in a database of its own that is dropped
afterwards. The vectors are clustered, because isotropic random ones have no neighbours to find: normal
centres, one for 100 vectors, around each of which vectors vary along 16 directions that all share, and a
little along all others. Queries are drawn in the same way and are none of the vectors.
"""

from __future__ import annotations

import math
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, create_engine, text

from registry.errors import ConfigurationError
from registry.jobs.progress import Progress, Silent

__all__ = ["Clusters", "Measured", "Setting", "bench_search", "fill", "temporary_database"]

_SHA = "0" * 64
_CHUNK = 50_000
_ENCODER = "bench"


@dataclass(frozen=True)
class Setting:
    """Sizes of a measurement."""

    rows: int = 100_000
    dim: int = 768
    k: int = 10
    queries: int = 500
    exact_rows: int = 20_000
    exact_dim: int = 256
    full_rows: int = 0
    """Vectors of the large index; 0: none is built."""
    full_dim: int = 256
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """One line of the table."""

    what: str
    value: float
    unit: str
    goal: str
    """As ``<= 2``; empty where there is none."""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if not self.goal:
            return None
        sign, limit = self.goal.split()
        return self.value >= float(limit) if sign == ">=" else self.value <= float(limit)


class Clusters:
    """Clustered vectors, drawn piece by piece."""

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


def bench_search(
    engine: Engine, setting: Setting, progress: Progress | None = None, *, embedded: bool = True
) -> Iterator[Measured]:
    """Measure everything, one line after the other.

    Parameters
    ----------
    engine
        On any database of the server; its role makes and drops databases of the bench's own.
    setting
        Sizes.
    progress
        Told what is being done.
    embedded
        Whether the server runs on this machine, so that its memory can be looked at.

    Raises
    ------
    ConfigurationError
        If faiss-cpu or hnswlib is not installed.
    """
    import_rivals()
    progress = progress or Silent()
    with temporary_database(engine) as bench:
        progress.message(f"{setting.exact_rows:,} x {setting.exact_dim} vectors, no index")
        vectors, queries = fill(bench, setting.exact_rows, setting.exact_dim, setting.queries, seed=setting.seed)
        progress.message("queries in SQL")
        yield from _exact(bench, queries[:100], setting)
    with temporary_database(engine) as bench:
        progress.message(f"{setting.rows:,} x {setting.dim} vectors, with an index")
        vectors, queries = fill(bench, setting.rows, setting.dim, setting.queries, seed=setting.seed)
        yield from _indexed(bench, vectors, queries, setting, progress, embedded=embedded)
    del vectors
    if setting.full_rows:
        with temporary_database(engine) as bench:
            progress.message(f"{setting.full_rows:,} x {setting.full_dim} vectors, with an index")
            yield from _full(bench, setting, progress, embedded=embedded)


def import_rivals() -> tuple[Any, Any]:
    """The modules faiss and hnswlib, which the extra ``bench`` installs.

    Raises
    ------
    ConfigurationError
        If one is not installed.
    """
    try:
        import faiss
        import hnswlib
    except ImportError as error:
        raise ConfigurationError(
            f"{error.name} is not installed, with which the search is compared; `pip install 'ecdreg[bench]'`"
        ) from error
    return faiss, hnswlib


@contextmanager
def temporary_database(engine: Engine) -> Iterator[Engine]:
    """An empty registry on the same server, dropped at the end.

    Parameters
    ----------
    engine
        On any database of the server.
    """
    from registry.postgres.schema import upgrade

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
    """Put crystals with clustered vectors into an empty registry; ``source_id`` i has the i-th vector.

    Parameters
    ----------
    rows, dim
        Number of vectors, and their length.
    queries
        How many more are drawn.
    keep
        False: the vectors are not kept in memory, and an empty array is returned for them.

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
        encoder = _crystals(connection, rows, dim)
        driver = connection.connection.driver_connection
        assert driver is not None, "a connection in use has a driver's"
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


def _crystals(connection: Any, rows: int, dim: int) -> int:
    """Crystals without anything, and an encoder, the default one; its id."""
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
        " SELECT id, 'k_vrh', 'GGA', 1 + id % 500 FROM crystal_revisions",
    ):
        values = {name: value for name, value in (("rows", rows), ("sha", _SHA), ("run", run)) if f":{name}" in sql}
        connection.execute(text(sql), values)
    encoder = connection.scalar(
        text(
            "INSERT INTO encoders (name, modality, dim, weights_sha256, preprocessing, preprocessing_sha256)"
            " VALUES (:name, 'image', :dim, :sha, '{}', :sha) RETURNING id"
        ),
        {"name": _ENCODER, "dim": dim, "sha": _SHA},
    )
    connection.execute(text("INSERT INTO encoder_aliases VALUES ('default', :encoder)"), {"encoder": encoder})
    return int(encoder)


# ------------------------------------------------------------------------ measurements


def _exact(bench: Engine, queries: NDArray[np.float32], setting: Setting) -> Iterator[Measured]:
    with _searching(bench) as search:
        for query in queries[:10]:
            search(query, setting.k)
        times = [search(query, setting.k)[1] for query in queries]
    what = f"exact search in SQL, {setting.exact_rows:,} x {setting.exact_dim}"
    yield Measured(f"{what}: p50", _percentile(times, 50), "ms", "<= 20")


def _indexed(
    bench: Engine,
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    setting: Setting,
    progress: Progress,
    *,
    embedded: bool,
) -> Iterator[Measured]:
    from registry.search.indexes import build_index

    size = f"{setting.rows:,} x {setting.dim}"
    start = time.perf_counter()
    index = build_index(bench, _ENCODER, embedded=embedded)
    yield Measured(f"index of {size} halfvec: build", time.perf_counter() - start, "s", "")
    yield Measured(f"index of {size} halfvec: size", index.megabytes or 0.0, "MB", "")
    progress.message("FAISS flat and hnswlib take the vectors")
    rivals = _Rivals(vectors)
    progress.message("queries in SQL, then of hnswlib and FAISS flat")
    with _searching(bench) as search:
        # One after the other: FAISS flat reads all vectors for each query and leaves no cache to the next.
        for query in queries[:50]:
            search(query, setting.k)
        found, times, busy = [], [], []
        for query in queries:
            before = search.processor()
            positions, seconds = search(query, setting.k)
            busy.append(search.processor() - before)
            found.append(positions)
            times.append(seconds)
        near, hnsw_times = zip(*(rivals.hnsw(query, setting.k) for query in queries), strict=True)
        truth, flat_times = zip(*(rivals.flat(query, setting.k) for query in queries), strict=True)
        recalls = [_recall(*pair) for pair in zip(found, truth, strict=True)]
        hnsw_recalls = [_recall(*pair) for pair in zip(near, truth, strict=True)]
        name = f"{size}, k {setting.k}"
        yield Measured(f"{name}: recall, mean", float(np.mean(recalls)), "", ">= 0.99")
        yield Measured(f"{name}: recall, worst of {len(queries)}", float(min(recalls)), "", ">= 0.8")
        yield Measured(f"{name}: SQL p50", _percentile(times, 50), "ms", "<= 2")
        yield Measured(f"{name}: SQL p95", _percentile(times, 95), "ms", "<= 5")
        if embedded:
            yield Measured(f"{name}: SQL p50, time of the processor alone", _percentile(busy, 50), "ms", "")
        yield Measured(f"{name}: FAISS flat p50", _percentile(flat_times, 50), "ms", "")
        yield Measured(f"{name}: hnswlib p50", _percentile(hnsw_times, 50), "ms", "")
        yield Measured(f"{name}: hnswlib recall, mean", float(np.mean(hnsw_recalls)), "", "")
        yield Measured("SQL / FAISS flat, p50", _percentile(times, 50) / _percentile(flat_times, 50), "", "")
        yield Measured("SQL / hnswlib, p50", _percentile(times, 50) / _percentile(hnsw_times, 50), "", "")
        random = np.random.default_rng(setting.seed + 1)
        for share in (0.1, 0.01):
            yield from _filtered(search, rivals, random.random(setting.rows) < share, queries[:200], share, setting)


def _filtered(
    search: _Search,
    rivals: _Rivals,
    passing: NDArray[np.bool_],
    queries: NDArray[np.float32],
    share: float,
    setting: Setting,
) -> Iterator[Measured]:
    exist = min(setting.k, int(passing.sum()))
    recalls, times, missing = [], [], 0
    within = search.ids(np.flatnonzero(passing))
    for query in queries:
        found, seconds = search(query, setting.k, within)
        recalls.append(_recall(found, rivals.flat(query, setting.k, passing)[0]))
        times.append(seconds)
        missing += exist - len(found)
    name = f"filter that keeps {100 * share:g} %"
    yield Measured(f"{name}: recall, mean", float(np.mean(recalls)), "", ">= 0.98")
    yield Measured(f"{name}: recall, worst of {len(queries)}", float(min(recalls)), "", "")
    yield Measured(f"{name}: rows missing", float(missing), "", "<= 0")
    yield Measured(f"{name}: SQL p50", _percentile(times, 50), "ms", "")


def _full(bench: Engine, setting: Setting, progress: Progress, *, embedded: bool) -> Iterator[Measured]:
    from registry.search.indexes import build_index

    _, queries = fill(bench, setting.full_rows, setting.full_dim, 200, seed=setting.seed, keep=False)
    progress.message("building the index")
    size = f"{setting.full_rows:,} x {setting.full_dim} halfvec"
    with _memory(bench, watch=embedded) as peak:
        start = time.perf_counter()
        index = build_index(bench, _ENCODER, embedded=embedded)
        seconds = time.perf_counter() - start
    yield Measured(f"index of {size}: build", seconds, "s", "")
    yield Measured(f"index of {size}: size", index.megabytes or 0.0, "MB", "")
    if embedded:
        yield Measured(f"index of {size}: memory of server and command while it was built", peak[0], "GiB", "<= 8")
    progress.message("last queries in SQL")
    with _searching(bench) as search:
        for query in queries:
            search(query, setting.k)
        times = [search(query, setting.k)[1] for query in queries]
    yield Measured(f"{size}, k {setting.k}: SQL p50", _percentile(times, 50), "ms", "")
    yield Measured(f"{size}, k {setting.k}: SQL p95", _percentile(times, 95), "ms", "")


class _Search:
    """``similar_to_vector`` over one connection, as any client calls it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._backend = connection.info.backend_pid
        self._crystals = [row[0] for row in connection.execute("SELECT id FROM crystals ORDER BY source_id::int")]

    def __call__(
        self, query: NDArray[np.float32], k: int, within: list[int] | None = None
    ) -> tuple[NDArray[np.int64], float]:
        """Positions of the vectors that were found, and the time [s] until they were here."""
        start = time.perf_counter()
        rows = self._connection.execute(
            "SELECT source_id, distance FROM similar_to_vector(%b, k => %s, within => %s)",
            (query, k, within),
            binary=True,
        ).fetchall()
        seconds = time.perf_counter() - start
        return np.array([int(row[0]) for row in rows], dtype=np.int64), seconds

    def processor(self) -> float:
        """Time [s] that the server's process has had a processor; NaN where it is not on this machine."""
        with suppress(OSError):
            return int(Path(f"/proc/{self._backend}/schedstat").read_text(encoding="utf-8").split()[0]) / 1e9
        return math.nan

    def ids(self, positions: NDArray[np.int64]) -> list[int]:
        """crystal_ids of vectors."""
        return [self._crystals[i] for i in positions]


@contextmanager
def _searching(bench: Engine) -> Iterator[_Search]:
    import psycopg
    from pgvector.psycopg import register_vector

    target = bench.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(target, autocommit=True) as connection:
        register_vector(connection)
        yield _Search(connection)


class _Rivals:
    """FAISS flat and hnswlib on the same vectors, one thread each, as PostgreSQL has for a query."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        faiss, hnswlib = import_rivals()
        faiss.omp_set_num_threads(1)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        self._faiss = faiss
        self._flat = faiss.IndexFlatIP(vectors.shape[1])
        self._flat.add(unit)
        self._hnsw = hnswlib.Index(space="cosine", dim=vectors.shape[1])
        self._hnsw.init_index(max_elements=len(vectors), M=16, ef_construction=128, random_seed=0)
        self._hnsw.add_items(vectors)
        self._hnsw.set_ef(64)
        self._hnsw.set_num_threads(1)

    def flat(
        self, query: NDArray[np.float32], k: int, passing: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], float]:
        """The nearest ones, exactly, and the time [s]."""
        parameters = None
        if passing is not None:
            bits = np.packbits(passing, bitorder="little")
            chosen = self._faiss.IDSelectorBitmap(bits)
            parameters = self._faiss.SearchParameters(sel=chosen)
        unit = (query / np.linalg.norm(query))[None]
        start = time.perf_counter()
        found = self._flat.search(unit, k, params=parameters)[1][0]
        return found[found >= 0], time.perf_counter() - start

    def hnsw(self, query: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], float]:
        """What hnswlib finds, and the time [s]."""
        start = time.perf_counter()
        found = self._hnsw.knn_query(query, k)[0][0]
        return found.astype(np.int64), time.perf_counter() - start


def _recall(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    return 1.0 if not len(truth) else len(np.intersect1d(found, truth)) / len(truth)


def _percentile(seconds: Sequence[float], percent: float) -> float:
    """[ms]"""
    return float(np.percentile(seconds, percent)) * 1000


@contextmanager
def _memory(bench: Engine, *, watch: bool) -> Iterator[list[float]]:
    """Largest sum of proportional memory [GiB] of the server's processes and this one, looked at each second."""
    peak = [0.0]
    if not watch or sys.platform != "linux":
        yield peak
        return
    with bench.connect() as connection:
        backend = int(connection.scalar(text("SELECT pg_backend_pid()")) or 0)
    postmaster = _parent(backend)
    done = threading.Event()

    def look() -> None:
        while not done.wait(1.0):
            pids = [os.getpid(), postmaster, *_children(postmaster)]
            peak[0] = max(peak[0], sum(map(_proportional, pids)) / 2**30)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _parent(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    return 0


def _children(pid: int) -> list[int]:
    everyone = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [one for one in everyone if pid and _parent(one) == pid]


def _proportional(pid: int) -> int:
    """Memory of a process [byte]; what it shares with others is divided among them."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
