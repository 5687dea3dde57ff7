"""Evaluation of similarity search: neighbours by encoder, by composition and by chance.

For each query crystal, its k nearest others are evaluated: the share with the same prototype, and the differences of
their properties. The references, on the same queries and pool, are the distance of Magpie features (Euclidean, each
feature in units of its standard deviation), the earth mover's distance of compositions on Pettifor's scale (ElMD:
C. J. Hargreaves et al., Chemistry of Materials 32, 10610 (2020)), and all other crystals (chance). For an encoder that
was trained on labels, the queries are the holdout of its split only, which was in no fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.encoders import read_embeddings
from registry.errors import ConfigurationError, NotFoundError
from registry.jobs.progress import Progress, Silent
from registry.properties import TARGETS
from registry.search.fusion import DAMPING
from train.featurizers.magpie import magpie_features
from train.featurizers.pettifor import pettifor_distances

__all__ = ["CHANCE", "ELMD", "MAGPIE", "Score", "evaluate_search"]

CHANCE = "chance"
MAGPIE = "composition, Magpie"
ELMD = "composition, ElMD"

_CHUNK = 256

_Distances: TypeAlias = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""Function from query rows (M,) to their distances from all N rows, (M, N)."""


@dataclass(frozen=True)
class Score:
    """Similarity of the neighbours by one measure."""

    measure: str
    """Name of the encoder, or one of :data:`CHANCE`, :data:`MAGPIE`, :data:`ELMD`."""
    queries: str
    """Description of the queries: all crystals, or the holdout of a split."""
    supervised: bool
    """Whether the encoder was trained on labels."""
    n_queries: int
    n_pool: int
    """Number of crystals in the pool of neighbours."""
    k: int
    prototype: float | None
    """Share of the neighbours with the prototype of the query; None if no prototype is known."""
    differences: Mapping[str, float]
    """Mean absolute difference to the neighbours by property, in its unit, of known values that are not suspect."""
    errors: Mapping[str, float]
    """Standard errors of these means over the queries, by property and ``prototype``."""


@dataclass(frozen=True)
class _Crystals:
    """N crystals, aligned."""

    revision_ids: NDArray[np.int64]
    materials: NDArray[np.object_]
    formulas: list[str]
    prototypes: NDArray[np.object_]
    values: Mapping[str, NDArray[np.float64]]
    """By property, (N,); NaN if not known or suspect."""

    def take(self, rows: NDArray[np.int64]) -> _Crystals:
        return _Crystals(
            self.revision_ids[rows],
            self.materials[rows],
            [self.formulas[i] for i in rows],
            self.prototypes[rows],
            {name: values[rows] for name, values in self.values.items()},
        )


def evaluate_search(
    session: Session,
    *,
    encoders: Sequence[str] | None = None,
    fused: Sequence[Sequence[str]] = (),
    k: int = 5,
    limit: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Score]:
    """Evaluate the neighbours of encoders, with composition and chance as references.

    Parameters
    ----------
    session
        Only read.
    encoders
        Names or aliases; None for all that have vectors.
    fused
        Sets of encoders that are combined by reciprocal rank fusion, as in ``ecdreg similar``.
    k
        Number of neighbours.
    limit
        Largest number of queries, which are drawn at random if there are more.
    seed
        Seed of that draw.
    progress
        Reports each encoder.

    Returns
    -------
    list of Score
        In blocks of equal queries and pools: chance, composition, then the encoders by name.

    Raises
    ------
    ConfigurationError
        If ``k`` or ``limit`` is less than 1.
    NotFoundError
        If an encoder is unknown, or none has vectors.
    """
    if k < 1 or limit < 1:
        raise ConfigurationError(f"k is {k} and limit {limit}; give at least 1 for each")
    progress = progress or Silent()
    everything = _crystals(session)
    row_of = {int(rid): i for i, rid in enumerate(everything.revision_ids)}
    blocks: dict[tuple[str, tuple[int, ...], tuple[int, ...]], list[tuple[str, bool, _Distances]]] = {}
    single = [[encoder] for encoder in _encoders(session, encoders)]
    together = [_encoders(session, names) for names in fused]
    for group in [*single, *together]:
        stored = [read_embeddings(session, encoder["id"]) for encoder in group]
        pool = np.array([i for rid, i in row_of.items() if all(rid in one for one in stored)], dtype=np.int64)
        if len(pool) < 2:
            continue
        ids = everything.revision_ids[pool]
        queries, description = _queries(session, group, ids)
        if len(queries) > limit:
            queries = np.sort(np.random.default_rng(seed).choice(queries, limit, replace=False))
        if len(queries):
            measures = [_cosine(np.stack([one[int(rid)][1] for rid in ids])) for one in stored]
            block = blocks.setdefault((description, tuple(queries.tolist()), tuple(pool.tolist())), [])
            supervised = any(encoder["split_id"] is not None for encoder in group)
            block.append((" + ".join(encoder["name"] for encoder in group), supervised, _joined(measures)))
    if not blocks:
        raise NotFoundError("no encoder has vectors of at least two crystals; `ecdreg train` creates them")
    scores = []
    progress.begin("encoders", sum(len(block) for block in blocks.values()))
    for (description, query_rows, pool_rows), block in blocks.items():
        evaluation = _Evaluation(everything.take(np.array(pool_rows)), np.array(query_rows), description, k)
        scores += evaluation.references()
        for name, supervised, distances in sorted(block, key=lambda one: (" + " in one[0], one[0])):
            scores.append(evaluation.score(name, distances, supervised=supervised))
            progress.advance(1, name)
    progress.end()
    return scores


class _Evaluation:
    """Evaluation of measures on one set of queries in one pool."""

    def __init__(self, pool: _Crystals, queries: NDArray[np.int64], description: str, k: int) -> None:
        self._pool = pool
        self._queries = queries
        self._description = description
        self._k = min(k, len(pool.formulas) - 1)

    def references(self) -> list[Score]:
        features = magpie_features(self._pool.formulas)
        spread = features.std(axis=0)
        scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        return [
            self._by_chance(),
            self.score(MAGPIE, _euclidean(scaled)),
            self.score(
                ELMD, lambda rows: pettifor_distances([self._pool.formulas[i] for i in rows], self._pool.formulas)
            ),
        ]

    def score(self, measure: str, distances: _Distances, *, supervised: bool = False) -> Score:
        found = np.empty((len(self._queries), self._k), dtype=np.int64)
        for start in range(0, len(self._queries), _CHUNK):
            rows = self._queries[start : start + _CHUNK]
            apart = distances(rows)
            apart[self._same(rows)] = np.inf
            found[start : start + len(rows)] = np.argsort(apart, axis=1, kind="stable")[:, : self._k]
        valid = np.ones(found.shape, dtype=bool)
        for i, row in enumerate(self._queries):  # a material under many sources may have fewer than k neighbours
            valid[i] = self._pool.materials[found[i]] != self._pool.materials[row]
        return self._score(measure, lambda i: found[i][valid[i]], supervised=supervised)

    def _by_chance(self) -> Score:
        everyone = np.arange(len(self._pool.formulas))
        return self._score(CHANCE, lambda i: everyone[~self._same(self._queries[i : i + 1])[0]], supervised=False)

    def _same(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        same: NDArray[np.bool_] = self._pool.materials[rows][:, None] == self._pool.materials[None, :]
        return same

    def _score(self, measure: str, neighbours: Callable[[int], NDArray[np.int64]], *, supervised: bool) -> Score:
        shares: list[float] = []
        apart: dict[str, list[float]] = {name: [] for name in self._pool.values}
        for i, row in enumerate(self._queries):
            near = neighbours(i)
            own = self._pool.prototypes[row]
            if own is not None and len(near):
                shares.append(float(np.mean(self._pool.prototypes[near] == own)))
            for name, values in self._pool.values.items():
                differences = np.abs(values[near] - values[row])
                if np.isfinite(differences).any():
                    apart[name].append(float(np.nanmean(differences)))
        errors = {name: _standard_error(found) for name, found in [("prototype", shares), *apart.items()] if found}
        return Score(
            measure=measure,
            queries=self._description,
            supervised=supervised,
            n_queries=len(self._queries),
            n_pool=len(self._pool.formulas),
            k=self._k,
            prototype=float(np.mean(shares)) if shares else None,
            differences={name: float(np.mean(found)) for name, found in apart.items() if found},
            errors=errors,
        )


def _standard_error(found: Sequence[float]) -> float:
    return float(np.std(found, ddof=1) / np.sqrt(len(found))) if len(found) > 1 else 0.0


def _cosine(vectors: NDArray[np.float32]) -> _Distances:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return lambda rows: np.asarray(1.0 - unit[rows] @ unit.T, dtype=np.float64)


def _joined(measures: Sequence[_Distances]) -> _Distances:
    """A single measure unchanged; for several, the negative sum of their reciprocal ranks."""
    if len(measures) == 1:
        return measures[0]

    def distances(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        total = np.zeros(0)
        for measure in measures:
            # The query itself has rank 0, so that the ranks of the others start at 1.
            places = np.argsort(np.argsort(measure(rows), axis=1, kind="stable"), axis=1, kind="stable")
            total = total + 1.0 / (DAMPING + places) if total.size else 1.0 / (DAMPING + places)
        return -total

    return distances


def _euclidean(points: NDArray[np.float64]) -> _Distances:
    squares = np.einsum("nd,nd->n", points, points)
    return lambda rows: squares[rows][:, None] + squares[None, :] - 2.0 * points[rows] @ points.T


def _crystals(session: Session) -> _Crystals:
    rows = session.execute(
        text(
            f"SELECT revision_id, material_key, formula, prototype, suspect, {', '.join(TARGETS)} FROM v_materials"
            " ORDER BY revision_id"
        )
    ).all()
    return _Crystals(
        np.array([row.revision_id for row in rows], dtype=np.int64),
        np.array([row.material_key for row in rows], dtype=object),
        [row.formula for row in rows],
        np.array([row.prototype for row in rows], dtype=object),
        {
            name: np.array(
                [np.nan if (v := getattr(row, name)) is None or name in row.suspect else v for row in rows],
                dtype=np.float64,
            )
            for name in TARGETS
        },
    )


def _encoders(session: Session, names: Sequence[str] | None) -> list[dict[str, Any]]:
    from registry.encoders import resolve_encoder

    wanted = None if names is None else [resolve_encoder(session, name).id for name in names]
    rows = session.execute(
        text(
            """
            SELECT e.id, e.name, x.split_id, s.name AS split, s.target
            FROM encoders e
            LEFT JOIN model_versions v ON v.id = e.model_version_id
            LEFT JOIN experiments x ON x.id = v.experiment_id
            LEFT JOIN splits s ON s.id = x.split_id
            WHERE CAST(:wanted AS bigint[]) IS NULL OR e.id = ANY(:wanted)
            ORDER BY x.split_id IS NOT NULL, s.target, s.name, e.name
            """
        ),
        {"wanted": wanted},
    )
    return [dict(row) for row in rows.mappings()]


def _queries(
    session: Session, encoders: Sequence[Mapping[str, Any]], revision_ids: NDArray[np.int64]
) -> tuple[NDArray[np.int64], str]:
    """Rows of the pool that are valid queries of the encoders, and a description of them."""
    allowed = np.ones(len(revision_ids), dtype=bool)
    descriptions = []
    for split_id, split, target in sorted(
        {(e["split_id"], e["split"], e["target"]) for e in encoders if e["split_id"] is not None}
    ):
        holdout = set(
            session.scalars(
                text("SELECT revision_id FROM split_members WHERE split_id = :split AND subset = 'holdout'"),
                {"split": split_id},
            )
        )
        allowed &= np.array([int(rid) in holdout for rid in revision_ids])
        descriptions.append(f"holdout of {split} for {target}")
    return np.flatnonzero(allowed), " and ".join(descriptions) or "all crystals"
