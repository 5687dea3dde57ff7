"""Similarity search: the crystals nearest to a crystal, a vector or a text.

The search itself is done by the SQL functions ``similar_crystals``, ``similar_to_vector`` and ``similar_to_text``, so
that SQL, Python and the command line give the same answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from sqlalchemy import ColumnElement, Integer, Text, any_, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from registry.errors import AmbiguousIdError, EcdregError, NotFoundError, QueryError
from registry.properties import target_names

__all__ = ["METRICS", "Neighbour", "TextNeighbour", "similar_to_crystal", "similar_to_text", "similar_to_vector"]

METRICS = ("cosine", "l2", "inner_product")
"""Distances: cosine, Euclidean, and minus the inner product, so that the smallest is the nearest."""

_MOST = 100_000
_ERRORS: dict[str, type[EcdregError]] = {
    "P0002": NotFoundError,  # no_data_found: no such crystal, or no embedding of it
    "P0003": AmbiguousIdError,  # too_many_rows
    "42704": NotFoundError,  # undefined_object: no such encoder
    "54000": QueryError,  # program_limit_exceeded: a vector of more dimensions than any may have
}


@dataclass(frozen=True)
class Neighbour:
    """One answer of a similarity search; columns as in ``v_materials``."""

    source: str
    source_id: str
    formula: str
    distance: float
    """By the metric of the search; cosine: 0 (same direction) to 2 (opposite) [1]."""
    space_group_symbol: str | None
    properties: Mapping[str, float | None]
    """Values of the properties of :func:`registry.properties.target_names`, each in its unit; None where unknown."""
    crystal_id: int

    def as_row(self) -> dict[str, Any]:
        """All fields by name, each property as a field of its own."""
        return _flat(self)


@dataclass(frozen=True)
class TextNeighbour:
    """One answer of a search by words; columns as in ``v_materials``."""

    source: str
    source_id: str
    formula: str
    distance: float | None
    """Of the embedding; None where no vector was given or it is not among the nearest."""
    space_group_symbol: str | None
    properties: Mapping[str, float | None]
    """As in :class:`Neighbour`."""
    crystal_id: int
    score: float
    """Sum of 1 / (60 + rank) over both ranks; the largest comes first."""
    words_rank: int | None
    """By full-text search; equal texts share a rank. None where no word matches."""
    vector_rank: int | None
    """By the distance of the embedding; None as :attr:`distance`."""

    def as_row(self) -> dict[str, Any]:
        """All fields by name, each property as a field of its own."""
        return _flat(self)


_Answer = TypeVar("_Answer", Neighbour, TextNeighbour)


def similar_to_crystal(
    session: Session,
    ident: str,
    *,
    encoder: str | None = None,
    k: int = 10,
    where: str | None = None,
    within: Sequence[int] | None = None,
    metric: str = "cosine",
) -> list[Neighbour]:
    """Find the crystals with embeddings nearest to that of a crystal, nearest first.

    Parameters
    ----------
    ident
        Id of the crystal, or ``source:id``. The answer excludes its own material.
    encoder
        Name or alias of the encoder; None: the alias ``default``.
    k
        Number of neighbours; fewer where the registry has fewer.
    where
        Search only among crystals that pass this filter; see :mod:`registry.search.filters`.
    within
        Search only among crystals of these ids (``crystal_id`` of ``v_materials``); with ``where``, both hold.
    metric
        One of :data:`METRICS`.

    Raises
    ------
    NotFoundError
        If there is no such crystal or encoder, or the crystal has no embedding.
    AmbiguousIdError
        If several sources have the id.
    QueryError
        If the id, the filter, ``k`` or the metric cannot be used.
    """
    query = bindparam(None, _text(ident), Text(), unique=True)
    try:
        return _search(session, "similar_crystals", Neighbour, [query], _Options(encoder, k, where, within, metric))
    except NotFoundError:
        from registry.crystals import resolve  # imports all tables, which a successful search does not need

        resolve(session, ident)  # where the crystal is missing, this error proposes similar ids
        raise


def similar_to_vector(
    session: Session,
    vector: ArrayLike,
    *,
    encoder: str | None = None,
    k: int = 10,
    where: str | None = None,
    within: Sequence[int] | None = None,
    metric: str = "cosine",
) -> list[Neighbour]:
    """Find the crystals with embeddings nearest to a vector, nearest first.

    Parameters
    ----------
    vector
        Shape (dim of the encoder,); the metric cosine does not depend on its length.
    encoder, k, where, within, metric
        As in :func:`similar_to_crystal`.

    Raises
    ------
    NotFoundError
        If there is no such encoder.
    QueryError
        If the vector has another length, is not finite, or is zero and has no direction, or if the filter, ``k`` or
        the metric cannot be used.
    """
    return _search(
        session, "similar_to_vector", Neighbour, [_vector(vector)], _Options(encoder, k, where, within, metric)
    )


def similar_to_text(
    session: Session,
    words: str,
    vector: ArrayLike | None = None,
    *,
    encoder: str | None = None,
    k: int = 10,
    where: str | None = None,
    within: Sequence[int] | None = None,
    metric: str = "cosine",
) -> list[TextNeighbour]:
    """Find the crystals that match some words best, by their descriptions and, where given, an embedding of the words.

    Full-text search (any of the words, stemmed) and vector search are fused by reciprocal ranks (Cormack, Clarke and
    Büttcher, SIGIR 2009): a crystal's score is the sum of 1 / (60 + rank) over both.

    Parameters
    ----------
    words
        Any text; never parsed as a query.
    vector
        Embedding of the words by ``encoder``, shape (dim of the encoder,); None: full-text search alone.
    encoder
        Name or alias of the encoder of the vector; None: the alias ``default`` where it is of modality text.
    k, where, within, metric
        As in :func:`similar_to_crystal`.

    Raises
    ------
    NotFoundError
        If there is no such encoder, or none is named and the default one does not read texts.
    QueryError
        If there are neither words to search for nor a vector, or as in :func:`similar_to_vector`.
    """
    query = [bindparam(None, _text(words), Text(), unique=True), _vector(vector)]
    return _search(session, "similar_to_text", TextNeighbour, query, _Options(encoder, k, where, within, metric))


@dataclass(frozen=True)
class _Options:
    """Arguments that all searches share."""

    encoder: str | None
    k: int
    where: str | None
    within: Sequence[int] | None
    metric: str


def _search(
    session: Session,
    function: str,
    kind: type[_Answer],
    query: list[ColumnElement[Any]],
    options: _Options,
) -> list[_Answer]:
    if not 1 <= options.k <= _MOST:
        raise QueryError(f"k is {options.k}; give 1 to {_MOST}")
    if options.metric not in METRICS:
        raise QueryError(f"no metric {options.metric!r}; there are: {', '.join(METRICS)}")
    name = None if options.encoder is None else _text(options.encoder)
    targets: tuple[str, ...] = target_names()
    own: list[str] = [field.name for field in fields(kind) if field.name != "properties"]
    answer = getattr(func, function)(
        *query,
        bindparam("encoder", name, Text()),
        bindparam("k", options.k, Integer()),
        _within(options.where, options.within),
        bindparam("metric", options.metric, Text()),
    ).table_valued(*own, *targets)
    # A savepoint: a failed search must not abort its caller's transaction.
    with _registry_errors(), session.begin_nested():
        rows = session.execute(select(*(answer.c[column] for column in (*own, *targets)))).mappings().all()
    return [kind(**{name: row[name] for name in own}, properties={name: row[name] for name in targets}) for row in rows]


def _flat(neighbour: Neighbour | TextNeighbour) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for field in fields(neighbour):
        value = getattr(neighbour, field.name)
        row.update(value if field.name == "properties" else {field.name: value})
    return row


def _vector(vector: ArrayLike | None) -> ColumnElement[Any]:
    from pgvector.sqlalchemy import VECTOR

    if vector is None:
        return bindparam(None, None, VECTOR(), unique=True)
    with np.errstate(over="ignore"):
        array = np.asarray(vector, dtype=np.float32)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise QueryError(
            f"a vector of shape {array.shape} cannot be used for a search; give finite numbers, shape (dim,)"
        )
    return bindparam(None, array, VECTOR(), unique=True)


def _text(value: str) -> str:
    if re.search("[\x00\ud800-\udfff]", value):
        raise QueryError(f"{value[:60]!r} has a character that a database cannot store; remove it")
    return value


def _within(where: str | None, within: Sequence[int] | None) -> ColumnElement[Any]:
    ids = None if within is None else [int(crystal_id) for crystal_id in within]
    chosen = bindparam("within", ids, ARRAY(BIGINT()))
    if where is None:
        return chosen
    from registry.search.filters import materials, parse

    view = materials()
    passing = select(view.c.crystal_id).where(parse(where))
    if within is not None:
        passing = passing.where(view.c.crystal_id == any_(chosen))
    return func.array(passing.scalar_subquery(), type_=ARRAY(BIGINT()))


@contextmanager
def _registry_errors() -> Iterator[None]:
    """Translate errors of the SQL functions into the classes of ``registry.errors``."""
    try:
        yield
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None) or ""
        # Class 22, data exceptions: a number out of range, a division by zero, a vector of another length.
        kind = _ERRORS.get(state, QueryError if state.startswith("22") else None)
        diagnosis = getattr(error.orig, "diag", None)
        if kind is None or diagnosis is None:
            raise
        hint = _as_clause(diagnosis.message_hint) if diagnosis.message_hint else ""
        raise kind(f"{diagnosis.message_primary}{hint}") from error


def _as_clause(sentence: str) -> str:
    """A hint of PostgreSQL, which is a sentence, as a clause after a semicolon; SQL keywords keep their capitals."""
    first = sentence[0].lower() if sentence[1:2].islower() else sentence[0]
    return f"; {first}{sentence[1:].removesuffix('.')}"
