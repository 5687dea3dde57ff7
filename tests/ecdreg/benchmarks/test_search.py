"""Tests of the search benchmark that need neither FAISS nor hnswlib."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sqlalchemy import Engine, text

from ecdreg.benchmarks.memory import peak_memory
from ecdreg.benchmarks.search import Measurement
from ecdreg.benchmarks.vectors import Clusters, fill, temporary_database


@pytest.mark.parametrize(
    ("value", "goal", "met"),
    [(2.0, "<= 2", True), (2.1, "<= 2", False), (0.99, ">= 0.99", True), (0.98, ">= 0.99", False), (1.0, "", None)],
)
def test_a_goal_is_a_limit_of_the_value(value: float, goal: str, met: bool | None) -> None:
    assert Measurement("what", value, "", goal).met is met


def test_clustered_vectors_are_reproducible_and_have_near_neighbours() -> None:
    vectors = Clusters(500, 64, seed=3).draw(500)
    assert np.array_equal(vectors, Clusters(500, 64, seed=3).draw(500))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, 0.0)
    assert similarity.max(axis=1).min() > 0.5


def test_a_temporary_registry_has_one_crystal_for_each_vector_and_is_dropped(engine: Engine) -> None:
    with temporary_database(engine) as bench:
        vectors, queries = fill(bench, 30, 8, 5)
        assert (vectors.shape, queries.shape) == ((30, 8), (5, 8))
        with bench.connect() as connection:
            nearest = connection.scalar(
                text("SELECT source_id FROM similar_to_vector(CAST(:query AS vector), k => 1)"),
                {"query": str(vectors[7].tolist())},
            )
        assert nearest == "7"
        name = bench.url.database
    with engine.connect() as connection:
        found = connection.scalar(text("SELECT count(*) FROM pg_database WHERE datname = :name"), {"name": name})
    assert found == 0


@pytest.mark.skipif(sys.platform != "linux", reason="proportional memory is measured on Linux only")
def test_memory_of_server_and_client_is_measured(engine: Engine) -> None:
    with peak_memory(engine, watch=True) as peak, engine.connect() as connection:
        connection.execute(text("SELECT pg_sleep(1.5)"))
    assert 0.01 < peak[0] < 100.0
    with peak_memory(engine, watch=False) as nothing:
        pass
    assert nothing == [0.0]
