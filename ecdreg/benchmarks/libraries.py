"""FAISS and hnswlib as references for the search in PostgreSQL."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from registry.errors import ConfigurationError

__all__ = ["ReferenceSearch", "import_libraries"]


def import_libraries() -> tuple[Any, Any]:
    """Import the modules faiss and hnswlib, which the extra ``bench`` installs.

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
            f"{error.name}, a reference for the search, is not installed; run `pip install 'ecdreg[bench]'`"
        ) from error
    return faiss, hnswlib


class ReferenceSearch:
    """FAISS flat and hnswlib with one thread each, like a query in PostgreSQL.

    Parameters
    ----------
    vectors
        Shape (rows, dim).
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        faiss, hnswlib = import_libraries()
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
        """Positions of the exact nearest neighbours by FAISS flat, and the time [s].

        Parameters
        ----------
        query
            Shape (dim,).
        k
            Number of neighbours.
        passing
            Shape (rows,), which vectors pass the filter; None: all.
        """
        parameters = None
        if passing is not None:
            bits = np.packbits(passing, bitorder="little")
            selector = self._faiss.IDSelectorBitmap(bits)
            parameters = self._faiss.SearchParameters(sel=selector)
        unit = (query / np.linalg.norm(query))[None]
        start = time.perf_counter()
        found = self._flat.search(unit, k, params=parameters)[1][0]
        return found[found >= 0], time.perf_counter() - start

    def hnsw(self, query: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], float]:
        """Positions of the neighbours that hnswlib finds, and the time [s]."""
        start = time.perf_counter()
        found = self._hnsw.knn_query(query, k)[0][0]
        return found.astype(np.int64), time.perf_counter() - start
