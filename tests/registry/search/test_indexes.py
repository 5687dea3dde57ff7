"""Search by the indexes: recall against an exact search, and the choice between both."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from pgvector.psycopg import register_vector
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from ecdreg.benchmarks.vectors import fill
from registry.database import connect
from registry.encoders import EncoderKey, ensure_encoder, resolve_encoder, write_embeddings
from registry.errors import ConfigurationError, NotFoundError, QueryError
from registry.search import indexes as vector_indexes
from registry.search.indexes import BuildOptions, build_index, drop_indexes, index_advice, index_status
from registry.search.vectors import METRICS
from registry.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import Clones

ROWS, DIM, K = 8_000, 24, 10
QUICK = BuildOptions(ef_construction=64, workers=0)  # workers wait for each other on a busy machine


class Searcher:
    """Calls the SQL functions, records the plans of their statements, and computes the exact answers."""

    def __init__(self, connection: Any, vectors: np.ndarray) -> None:
        self.connection = connection
        self.vectors = vectors.astype(np.float64)
        register_vector(connection)
        self.crystals = [r[0] for r in connection.execute("SELECT id FROM crystals ORDER BY source_id::int")]
        self.plans: list[str] = []
        connection.add_notice_handler(lambda diagnosis: self.plans.append(diagnosis.message_primary or ""))

    def explain(self) -> None:
        """From now on the plan of every statement is kept, those inside functions too."""
        for setting in ("log_min_duration = 0", "log_nested_statements = on", "log_level = notice"):
            self.connection.execute("LOAD 'auto_explain'")
            self.connection.execute(f"SET auto_explain.{setting}")

    def search(
        self, query: np.ndarray, *, k: int = K, within: np.ndarray | None = None, metric: str = "cosine"
    ) -> tuple[list[int], list[float]]:
        ids = None if within is None else [self.crystals[i] for i in within]
        self.plans.clear()
        rows = self.connection.execute(
            "SELECT source_id::int, distance FROM similar_to_vector(%s, k => %s, within => %s, metric => %s)",
            (query, k, ids, metric),
        ).fetchall()
        return [r[0] for r in rows], [r[1] for r in rows]

    def way(self) -> str:
        """How the last search went: through which index, or exact."""
        plans = "\n".join(self.plans)
        assert "on embeddings e" in plans
        used = set(re.findall(r"Index Scan using ix_embeddings_hnsw_\d+_(\w+)", plans))
        assert len(used) <= 1
        return used.pop() if used else "exact"

    def distances(self, query: np.ndarray, metric: str = "cosine") -> np.ndarray:
        query = query.astype(np.float64)
        if metric == "l2":
            return np.linalg.norm(self.vectors - query, axis=1)
        products = self.vectors @ query
        if metric == "inner_product":
            return -products
        return 1 - products / np.linalg.norm(self.vectors, axis=1) / np.linalg.norm(query)

    def recall(
        self, query: np.ndarray, *, k: int = K, within: np.ndarray | None = None, metric: str = "cosine"
    ) -> float:
        """Share of the right ones that were found; fails where rows are missing or a distance is not exact."""
        among = np.arange(len(self.vectors)) if within is None else within
        distances = self.distances(query, metric)
        truth = among[np.argsort(distances[among])[:k]]
        found, reported = self.search(query, k=k, within=within, metric=metric)
        assert len(found) == len(set(found)) == len(truth), "never fewer rows than exist"
        assert set(found) <= set(among.tolist())
        assert reported == sorted(reported)
        assert reported == pytest.approx(distances[found], rel=1e-5, abs=2e-6)
        return len(set(found) & set(truth.tolist())) / len(truth)


def _database(clones: Clones, rows: int, dim: int) -> tuple[Engine, str, np.ndarray, np.ndarray]:
    url = clones.server.url(clones.make())
    engine = connect(Settings(home=Path("/nonexistent"), database_url=url))
    return engine, url, *fill(engine, rows, dim, 60)


@pytest.fixture(scope="module")
def made(clones: Clones) -> Iterator[tuple[Engine, str, np.ndarray, np.ndarray]]:
    """A registry of clustered vectors with indexes for cosine and l2, none for the inner product."""
    database = _database(clones, ROWS, DIM)
    for metric in ("cosine", "l2"):
        build_index(database[0], "bench", metric, QUICK)
    yield database
    database[0].dispose()


@pytest.fixture
def searcher(made: tuple[Engine, str, np.ndarray, np.ndarray]) -> Iterator[Searcher]:
    """In a transaction that is rolled back."""
    with psycopg.connect(made[1]) as connection:
        yield Searcher(connection, made[2])
        connection.rollback()


@pytest.fixture
def queries(made: tuple[Engine, str, np.ndarray, np.ndarray]) -> np.ndarray:
    return made[3]


class TestRecall:
    @pytest.mark.parametrize("metric", METRICS)
    def test_against_an_exact_search(self, searcher: Searcher, queries: np.ndarray, metric: str) -> None:
        recalls = [searcher.recall(query, metric=metric) for query in queries]
        assert np.mean(recalls) >= (1.0 if metric == "inner_product" else 0.99)
        assert min(recalls) >= 0.8

    @pytest.mark.parametrize("share", [0.6, 0.1, 0.01])
    def test_with_a_filter(self, searcher: Searcher, queries: np.ndarray, share: float) -> None:
        within = np.flatnonzero(np.random.default_rng(1).random(ROWS) < share)
        recalls = [searcher.recall(query, within=within) for query in queries]
        assert np.mean(recalls) >= 0.98
        assert min(recalls) >= 0.8

    def test_with_a_filter_that_keeps_what_is_far_away(self, searcher: Searcher, queries: np.ndarray) -> None:
        for query in queries[:10]:
            within = np.argsort(searcher.distances(query))[ROWS // 2 :]
            assert searcher.recall(query, within=within) >= 0.8

    def test_number_of_neighbours(self, searcher: Searcher, queries: np.ndarray) -> None:
        for k in (1, 37, 200, 3000, ROWS, 1_000_000):
            assert searcher.recall(queries[0], k=k) >= (0.95 if k < 800 else 1.0)
        assert searcher.recall(queries[0], within=np.arange(7)) == 1.0

    @pytest.mark.slow
    @pytest.mark.parametrize("share", [1.0, 0.1, 0.01])
    def test_among_more(self, clones: Clones, share: float) -> None:
        engine, url, vectors, queries = _database(clones, 20_000, 64)
        build_index(engine, "bench", options=BuildOptions(workers=0))
        within = None if share == 1 else np.flatnonzero(np.random.default_rng(1).random(len(vectors)) < share)
        with psycopg.connect(url) as connection:
            searcher = Searcher(connection, vectors)
            recalls = [searcher.recall(query, within=within) for query in queries]
        engine.dispose()
        assert np.mean(recalls) >= 0.99
        assert min(recalls) >= 0.8


def test_without_an_index_every_vector_counts_as_it_is(clones: Clones) -> None:
    """More crystals than are compared exactly with an index; one vector exceeds half precision."""
    engine, url, vectors, queries = _database(clones, 2_100, 8)
    vectors[0] = [1e6, *vectors[0][1:]]
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE embeddings SET embedding = %s::vector"
            " WHERE revision_id = (SELECT min(revision_id) FROM embeddings)",
            (vectors[0].tolist(),),
        )
        searcher = Searcher(connection, vectors)
        assert all(searcher.recall(query, within=np.arange(2_100)) == 1.0 for query in queries[:10])
    engine.dispose()


class TestWay:
    """The planner's choice, from the plans of the statements that the functions run."""

    @pytest.mark.parametrize(
        ("options", "way"),
        [
            ({}, "cosine"),
            ({"metric": "l2"}, "l2"),
            ({"metric": "inner_product"}, "exact"),
            ({"within": 0.6}, "cosine"),
            ({"within": 0.1}, "exact"),
            ({"within": 0.01}, "exact"),
            ({"k": 100}, "cosine"),
            ({"k": 500}, "cosine"),
            ({"k": 2000}, "exact"),
        ],
    )
    def test_of_a_search(self, searcher: Searcher, queries: np.ndarray, options: dict[str, Any], way: str) -> None:
        if share := options.get("within"):
            options = options | {"within": np.flatnonzero(np.random.default_rng(1).random(ROWS) < share)}
        searcher.explain()
        for query in queries[:8]:  # more than the five after which PostgreSQL may prefer a generic plan
            searcher.search(query, **options)
            assert searcher.way() == way

    def test_a_selective_filter_goes_through_the_btree(self, searcher: Searcher, queries: np.ndarray) -> None:
        searcher.explain()
        searcher.search(queries[0], within=np.arange(0, ROWS, 800))
        plan = "\n".join(searcher.plans)
        assert "using uq_crystal_revisions_current" in plan or "on uq_crystal_revisions_current" in plan
        assert re.search(r"using (pk_embeddings|ix_embeddings_revision_id)", plan)
        assert "Seq Scan on embeddings" not in plan

    def test_of_similar_crystals(self, searcher: Searcher) -> None:
        searcher.explain()
        found = searcher.connection.execute("SELECT source_id FROM similar_crystals('7')").fetchall()
        assert searcher.way() == "cosine"
        assert len(found) == 10
        assert ("7",) not in found

    def test_settings_end_with_the_search(self, searcher: Searcher, queries: np.ndarray) -> None:
        searcher.connection.execute("SELECT '[1]'::vector")
        names = ("hnsw.iterative_scan", "hnsw.ef_search", "enable_sort", "jit", "plan_cache_mode")
        before = [searcher.connection.execute(f"SHOW {name}").fetchone() for name in names]
        searcher.search(queries[0])
        searcher.search(queries[0], k=500)
        assert [searcher.connection.execute(f"SHOW {name}").fetchone() for name in names] == before

    def test_an_index_that_is_not_valid_is_not_used(self, searcher: Searcher, queries: np.ndarray) -> None:
        searcher.connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid ="
            " (SELECT oid FROM pg_class WHERE relname ~ '^ix_embeddings_hnsw_.*_cosine$')"
        )
        searcher.explain()
        searcher.search(queries[0])
        assert searcher.way() == "exact"

    def test_another_encoder_has_its_own(self, searcher: Searcher, queries: np.ndarray) -> None:
        searcher.connection.execute(
            "INSERT INTO encoders (name, modality, dim, weights_sha256, preprocessing, preprocessing_sha256)"
            " SELECT 'other', 'image', 24, repeat('1', 64), '{}', repeat('0', 64)"
        )
        searcher.connection.execute(
            "INSERT INTO embeddings SELECT (SELECT id FROM encoders WHERE name = 'other'), revision_id, dim,"
            " embedding, input_sha256 FROM embeddings ORDER BY revision_id LIMIT 50"
        )
        searcher.explain()
        rows = searcher.connection.execute(
            "SELECT source_id::int FROM similar_to_vector(%s, 'other', k => 50)", (queries[0],)
        ).fetchall()
        assert searcher.way() == "exact"
        assert sorted(r[0] for r in rows) == list(range(50)), "those of the smaller encoder, all of them"

    def test_old_revisions_are_not_found(self, searcher: Searcher, queries: np.ndarray) -> None:
        before, _ = searcher.search(queries[0], k=20)
        searcher.connection.execute(
            "UPDATE crystal_revisions SET is_current = false FROM crystals c"
            " WHERE c.id = crystal_id AND c.source_id::int = ANY (%s)",
            (before[:10],),
        )
        searcher.explain()
        after, _ = searcher.search(queries[0], k=10)
        assert searcher.way() == "cosine"
        assert after == before[10:]


class TestBuild:
    @pytest.fixture
    def engine(self, made: tuple[Engine, str, np.ndarray, np.ndarray]) -> Engine:
        return made[0]

    def test_status_and_advice(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        with Session(engine) as session:
            rows = index_status(session)
            assert [(r.encoder, r.dim, r.vectors, r.metric, r.state) for r in rows] == [
                ("bench", DIM, ROWS, "cosine", "ready"),
                ("bench", DIM, ROWS, "l2", "ready"),
            ]
            assert all(r.megabytes > 0.1 for r in rows if r.megabytes is not None)
            encoder = resolve_encoder(session, "bench")
            assert index_advice(session, encoder) is None
            assert index_advice(session, encoder, "inner_product") is None, "too few to need one"
            monkeypatch.setattr(vector_indexes, "INDEX_ROWS", ROWS)
            assert index_advice(session, encoder) is None
            advice = index_advice(session, encoder, "inner_product")
            assert advice is not None
            assert "`ecdreg index build bench --metric inner_product`" in advice
            monkeypatch.setattr(vector_indexes, "INDEX_ROWS", ROWS + 1)
            assert index_advice(session, encoder, "inner_product") is None

    def test_build_again_online_and_drop(self, engine: Engine) -> None:
        first = build_index(engine, "default", "inner_product", BuildOptions(4, 16, memory_mb=64, workers=0))
        assert (first.encoder, first.metric, first.state) == ("bench", "inner_product", "ready")
        assert build_index(engine, "bench", "inner_product").megabytes == first.megabytes, "as it was"
        again = build_index(engine, "bench", "inner_product", BuildOptions(8, 16, online=True, rebuild=True))
        assert (again.megabytes or 0) > (first.megabytes or 0)
        assert [r.metric for r in drop_indexes(engine, "bench", "inner_product")] == ["inner_product"]
        assert drop_indexes(engine, metric="inner_product") == []

    def test_index_of_an_encoder_that_is_gone(self, engine: Engine) -> None:
        with Session(engine) as session, session.begin():
            gone = ensure_encoder(
                session, EncoderKey(weights_sha256="c" * 64, preprocessing={}), name="gone", modality="text", dim=3
            )
            first = session.scalar(text("SELECT min(id) FROM crystal_revisions"))
            write_embeddings(session, gone, [(first, [1.0, 2.0, 3.0], "0" * 64)])
        build_index(engine, "gone", options=QUICK)
        with Session(engine) as session, session.begin():
            session.execute(text("DELETE FROM encoders WHERE name = 'gone'"))
            assert [r.state for r in index_status(session) if r.encoder is None] == ["encoder is gone"]
        with Session(engine) as session:
            names = [r.name for r in index_status(session) if r.encoder is None]
        with engine.begin() as connection:
            connection.execute(text(f"DROP INDEX {names[0]}"))

    def test_vectors_that_half_precision_cannot_represent(self, engine: Engine) -> None:
        with Session(engine) as session, session.begin():
            large = ensure_encoder(
                session, EncoderKey(weights_sha256="d" * 64, preprocessing={}), name="large", modality="text", dim=2
            )
            first = session.scalar(text("SELECT min(id) FROM crystal_revisions"))
            write_embeddings(session, large, [(first, [1e6, 2.0], "0" * 64)])
        with pytest.raises(QueryError, match=r"have lengths of 1e\+06 to 1e\+06.*searches stay exact"):
            build_index(engine, "large")
        with Session(engine) as session, session.begin():
            session.execute(text("DELETE FROM encoders WHERE name = 'large'"))

    def test_what_cannot_be_built(self, engine: Engine) -> None:
        with pytest.raises(NotFoundError, match="no encoder 'bensh'; did you mean 'bench'"):
            build_index(engine, "bensh")
        with pytest.raises(ConfigurationError, match="no metric 'cos'; there are: cosine, l2, inner_product"):
            build_index(engine, "bench", "cos")
        with pytest.raises(ConfigurationError, match="ef_construction 8"):
            build_index(engine, "bench", "cosine", BuildOptions(8, 8))
        with Session(engine) as session, session.begin():
            for name, dim in (("wide", 4001), ("empty", 2)):
                ensure_encoder(
                    session,
                    EncoderKey(weights_sha256="e" * 64, preprocessing={"n": name}),
                    name=name,
                    modality="text",
                    dim=dim,
                )
        with pytest.raises(QueryError, match="4001 dimensions"):
            build_index(engine, "wide")
        with pytest.raises(NotFoundError, match="'empty' has no vectors"):
            build_index(engine, "empty")
        with Session(engine) as session, session.begin():
            session.execute(text("DELETE FROM encoders WHERE name IN ('wide', 'empty')"))
