"""Benchmark of the search by vectors: recall, latency, filters, and the time and size of an index.

All queries go through the SQL functions that users call, in a temporary database with clustered vectors
(:mod:`ecdreg.benchmarks.vectors`). FAISS flat gives the exact answer; hnswlib is a second reference.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from ecdreg.benchmarks.libraries import ReferenceSearch, import_libraries
from ecdreg.benchmarks.memory import peak_memory
from ecdreg.benchmarks.vectors import ENCODER, fill, temporary_database
from registry.jobs.progress import Progress, Silent
from registry.search.indexes import build_index

__all__ = ["Measurement", "SearchSizes", "benchmark_search"]


@dataclass(frozen=True)
class SearchSizes:
    """Sizes of the benchmark."""

    rows: int = 100_000
    """Vectors with an index."""
    dim: int = 768
    """Length of these vectors."""
    k: int = 10
    """Neighbours of a query."""
    queries: int = 500
    """Queries that are timed."""
    exact_rows: int = 20_000
    """Vectors without an index."""
    exact_dim: int = 256
    full_rows: int = 0
    """Vectors of the large index; 0: it is not built."""
    full_dim: int = 256
    seed: int = 0


@dataclass(frozen=True)
class Measurement:
    """One measured value."""

    what: str
    value: float
    unit: str
    goal: str
    """Limit of the value, such as ``<= 2``; empty if there is none."""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None if there is none."""
        if not self.goal:
            return None
        sign, limit = self.goal.split()
        return self.value >= float(limit) if sign == ">=" else self.value <= float(limit)


def benchmark_search(
    engine: Engine, sizes: SearchSizes, *, progress: Progress | None = None, embedded: bool = True
) -> list[Measurement]:
    """Measure the search by vectors.

    Parameters
    ----------
    engine
        Engine of any database of the server. Its role must be allowed to create databases.
    sizes
        Numbers of vectors and queries.
    progress
        Receives messages about the current step.
    embedded
        Whether the server runs on this machine, so that its memory can be measured.

    Raises
    ------
    ConfigurationError
        If faiss-cpu or hnswlib is not installed.
    """
    import_libraries()  # fail before the first measurement
    return list(_measure(engine, sizes, progress or Silent(), embedded=embedded))


def _measure(engine: Engine, sizes: SearchSizes, progress: Progress, *, embedded: bool) -> Iterator[Measurement]:
    with temporary_database(engine) as bench:
        progress.message(f"{sizes.exact_rows:,} x {sizes.exact_dim} vectors, no index")
        vectors, queries = fill(bench, sizes.exact_rows, sizes.exact_dim, sizes.queries, seed=sizes.seed)
        progress.message("queries in SQL")
        yield from _exact(bench, queries[:100], sizes)
    with temporary_database(engine) as bench:
        progress.message(f"{sizes.rows:,} x {sizes.dim} vectors, with an index")
        vectors, queries = fill(bench, sizes.rows, sizes.dim, sizes.queries, seed=sizes.seed)
        yield from _indexed(bench, vectors, queries, sizes, progress, embedded=embedded)
    del vectors
    if sizes.full_rows:
        with temporary_database(engine) as bench:
            progress.message(f"{sizes.full_rows:,} x {sizes.full_dim} vectors, with an index")
            yield from _full(bench, sizes, progress, embedded=embedded)


def _exact(bench: Engine, queries: NDArray[np.float32], sizes: SearchSizes) -> Iterator[Measurement]:
    with _searching(bench) as search:
        for query in queries[:10]:
            search(query, sizes.k)
        times = [search(query, sizes.k)[1] for query in queries]
    what = f"exact search in SQL, {sizes.exact_rows:,} x {sizes.exact_dim}"
    yield Measurement(f"{what}: p50", _percentile(times, 50), "ms", "<= 20")


def _indexed(
    bench: Engine,
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    sizes: SearchSizes,
    progress: Progress,
    *,
    embedded: bool,
) -> Iterator[Measurement]:
    size = f"{sizes.rows:,} x {sizes.dim}"
    start = time.perf_counter()
    index = build_index(bench, ENCODER, embedded=embedded)
    yield Measurement(f"index of {size} halfvec: build", time.perf_counter() - start, "s", "")
    yield Measurement(f"index of {size} halfvec: size", index.megabytes or 0.0, "MB", "")
    progress.message("adding the vectors to FAISS flat and hnswlib")
    references = ReferenceSearch(vectors)
    progress.message("queries in SQL, hnswlib and FAISS flat")
    with _searching(bench) as search:
        # One engine after another: FAISS flat reads all vectors for each query and evicts the cache of the others.
        for query in queries[:50]:
            search(query, sizes.k)
        found, times, busy = [], [], []
        for query in queries:
            before = search.processor_seconds()
            positions, seconds = search(query, sizes.k)
            busy.append(search.processor_seconds() - before)
            found.append(positions)
            times.append(seconds)
        near, hnsw_times = zip(*(references.hnsw(query, sizes.k) for query in queries), strict=True)
        truth, flat_times = zip(*(references.flat(query, sizes.k) for query in queries), strict=True)
        recalls = [_recall(*pair) for pair in zip(found, truth, strict=True)]
        hnsw_recalls = [_recall(*pair) for pair in zip(near, truth, strict=True)]
        name = f"{size}, k {sizes.k}"
        yield Measurement(f"{name}: recall, mean", float(np.mean(recalls)), "", ">= 0.99")
        yield Measurement(f"{name}: recall, worst of {len(queries)}", float(min(recalls)), "", ">= 0.8")
        yield Measurement(f"{name}: SQL p50", _percentile(times, 50), "ms", "<= 2")
        yield Measurement(f"{name}: SQL p95", _percentile(times, 95), "ms", "<= 5")
        if embedded:
            yield Measurement(f"{name}: SQL p50, time of the processor alone", _percentile(busy, 50), "ms", "")
        yield Measurement(f"{name}: FAISS flat p50", _percentile(flat_times, 50), "ms", "")
        yield Measurement(f"{name}: hnswlib p50", _percentile(hnsw_times, 50), "ms", "")
        yield Measurement(f"{name}: hnswlib recall, mean", float(np.mean(hnsw_recalls)), "", "")
        yield Measurement("SQL / FAISS flat, p50", _percentile(times, 50) / _percentile(flat_times, 50), "", "")
        yield Measurement("SQL / hnswlib, p50", _percentile(times, 50) / _percentile(hnsw_times, 50), "", "")
        random = np.random.default_rng(sizes.seed + 1)
        for share in (0.1, 0.01):
            yield from _filtered(search, references, random.random(sizes.rows) < share, queries[:200], share, sizes)


def _filtered(
    search: _Search,
    references: ReferenceSearch,
    passing: NDArray[np.bool_],
    queries: NDArray[np.float32],
    share: float,
    sizes: SearchSizes,
) -> Iterator[Measurement]:
    expected = min(sizes.k, int(passing.sum()))
    recalls, times, missing = [], [], 0
    within = search.ids(np.flatnonzero(passing))
    for query in queries:
        found, seconds = search(query, sizes.k, within)
        recalls.append(_recall(found, references.flat(query, sizes.k, passing)[0]))
        times.append(seconds)
        missing += expected - len(found)
    name = f"filter that keeps {100 * share:g} %"
    yield Measurement(f"{name}: recall, mean", float(np.mean(recalls)), "", ">= 0.98")
    yield Measurement(f"{name}: recall, worst of {len(queries)}", float(min(recalls)), "", "")
    yield Measurement(f"{name}: rows missing", float(missing), "", "<= 0")
    yield Measurement(f"{name}: SQL p50", _percentile(times, 50), "ms", "")


def _full(bench: Engine, sizes: SearchSizes, progress: Progress, *, embedded: bool) -> Iterator[Measurement]:
    _, queries = fill(bench, sizes.full_rows, sizes.full_dim, 200, seed=sizes.seed, keep=False)
    progress.message("building the index")
    size = f"{sizes.full_rows:,} x {sizes.full_dim} halfvec"
    with peak_memory(bench, watch=embedded) as peak:
        start = time.perf_counter()
        index = build_index(bench, ENCODER, embedded=embedded)
        seconds = time.perf_counter() - start
    yield Measurement(f"index of {size}: build", seconds, "s", "")
    yield Measurement(f"index of {size}: size", index.megabytes or 0.0, "MB", "")
    if embedded:
        yield Measurement(f"index of {size}: memory of server and command while it was built", peak[0], "GiB", "<= 8")
    progress.message("last queries in SQL")
    with _searching(bench) as search:
        for query in queries:
            search(query, sizes.k)
        times = [search(query, sizes.k)[1] for query in queries]
    yield Measurement(f"{size}, k {sizes.k}: SQL p50", _percentile(times, 50), "ms", "")
    yield Measurement(f"{size}, k {sizes.k}: SQL p95", _percentile(times, 95), "ms", "")


class _Search:
    """Calls of ``similar_to_vector`` over one connection, as a client makes them."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._backend = connection.info.backend_pid
        self._crystals = [row[0] for row in connection.execute("SELECT id FROM crystals ORDER BY source_id::int")]

    def __call__(
        self, query: NDArray[np.float32], k: int, within: list[int] | None = None
    ) -> tuple[NDArray[np.int64], float]:
        """Positions of the neighbours, and the time [s] until the client has them."""
        start = time.perf_counter()
        rows = self._connection.execute(
            "SELECT source_id, distance FROM similar_to_vector(%b, k => %s, within => %s)",
            (query, k, within),
            binary=True,
        ).fetchall()
        seconds = time.perf_counter() - start
        return np.array([int(row[0]) for row in rows], dtype=np.int64), seconds

    def processor_seconds(self) -> float:
        """Processor time [s] of the server's process; NaN if it runs on another machine."""
        # Not psutil: its cpu_times() have a resolution of 10 ms, and a query takes about 1 ms.
        with suppress(OSError):
            return int(Path(f"/proc/{self._backend}/schedstat").read_text(encoding="utf-8").split()[0]) / 1e9
        return math.nan

    def ids(self, positions: NDArray[np.int64]) -> list[int]:
        """Ids of the crystals of vectors."""
        return [self._crystals[i] for i in positions]


@contextmanager
def _searching(bench: Engine) -> Iterator[_Search]:
    import psycopg
    from pgvector.psycopg import register_vector

    target = bench.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(target, autocommit=True) as connection:
        register_vector(connection)
        yield _Search(connection)


def _recall(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    return 1.0 if not len(truth) else len(np.intersect1d(found, truth)) / len(truth)


def _percentile(seconds: Sequence[float], percent: float) -> float:
    """Percentile of times [ms]."""
    return float(np.percentile(seconds, percent)) * 1000
