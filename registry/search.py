"""Similarity search: what is like this crystal, or like this vector.

The search itself is the SQL functions ``similar_crystals`` and ``similar_to_vector``, so that a person
at the SQL prompt and one at the command line get the same answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sqlalchemy import ColumnElement, Integer, Text, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from registry.errors import AmbiguousIdError, EcdregError, NotFoundError, QueryError

__all__ = ["Neighbour", "similar_to_crystal", "similar_to_vector"]

_COLUMNS = (
    "source",
    "source_id",
    "formula",
    "distance",
    "space_group_symbol",
    "formation_energy_per_atom",
    "efermi",
    "k_vrh",
)
_ERRORS: dict[str, type[EcdregError]] = {
    "P0002": NotFoundError,  # no_data_found: no such crystal, or no embedding of it
    "P0003": AmbiguousIdError,  # too_many_rows
    "42704": NotFoundError,  # undefined_object: no such encoder
}


@dataclass(frozen=True)
class Neighbour:
    """One answer of a similarity search; columns as in ``v_materials``."""

    source: str
    source_id: str
    formula: str
    distance: float
    """Cosine distance, 0 (same direction) to 2 (opposite) [1]."""
    space_group_symbol: str | None
    formation_energy_per_atom: float | None
    """[eV/atom]"""
    efermi: float | None
    """[eV]"""
    k_vrh: float | None
    """[GPa]"""


def similar_to_crystal(
    session: Session, ident: str, *, encoder: str | None = None, k: int = 10, where: str | None = None
) -> list[Neighbour]:
    """The crystals whose embeddings are nearest to that of a crystal, nearest first.

    Parameters
    ----------
    ident
        Id of the crystal, or ``source:id``. Its own material is left out of the answer.
    encoder
        Name or alias of the encoder; None: the alias ``default``.
    k
        How many; fewer come where fewer there are.
    where
        Search only among crystals that this filter lets through; see :mod:`registry.filters`.

    Raises
    ------
    NotFoundError
        If there is no such crystal or encoder, or the crystal has no embedding.
    AmbiguousIdError
        If several sources have the id.
    QueryError
        If the filter or ``k`` cannot be used.
    """
    query = bindparam(None, ident, Text(), unique=True)
    try:
        return _search(session, "similar_crystals", query, encoder, k, where)
    except NotFoundError:
        from registry.crystals import resolve  # all tables, which an answer in time does without

        resolve(session, ident)  # where it is the crystal that is missing, this proposes near ids
        raise


def similar_to_vector(
    session: Session, vector: ArrayLike, *, encoder: str | None = None, k: int = 10, where: str | None = None
) -> list[Neighbour]:
    """The crystals whose embeddings are nearest to a vector, nearest first.

    Parameters
    ----------
    vector
        Shape (dim of the encoder,); its length does not matter.
    encoder, k, where
        As in :func:`similar_to_crystal`.

    Raises
    ------
    NotFoundError
        If there is no such encoder.
    QueryError
        If the vector has another length, or is zero or not finite, or if the filter or ``k`` cannot be used.
    """
    from pgvector.sqlalchemy import VECTOR

    array = np.asarray(vector, dtype=np.float32)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise QueryError(f"a vector of shape {array.shape} cannot be searched with; give finite numbers, shape (dim,)")
    return _search(session, "similar_to_vector", bindparam(None, array, VECTOR(), unique=True), encoder, k, where)


def _search(
    session: Session, function: str, query: ColumnElement[Any], encoder: str | None, k: int, where: str | None
) -> list[Neighbour]:
    if not 1 <= k <= 100_000:
        raise QueryError(f"k is {k}; ask for 1 to 100000 neighbours")
    answer = getattr(func, function)(
        query, bindparam("encoder", encoder, Text()), bindparam("k", k, Integer()), _within(where)
    ).table_valued(*_COLUMNS)
    # A savepoint: a failed search must not end its caller's transaction.
    with _told(), session.begin_nested():
        rows = session.execute(select(*(answer.c[name] for name in _COLUMNS))).all()
    return [Neighbour(*row) for row in rows]


def _within(where: str | None) -> ColumnElement[Any]:
    if where is None:
        return bindparam("within", None, ARRAY(BIGINT()))
    from registry.filters import MATERIALS, parse

    return func.array(select(MATERIALS.c.crystal_id).where(parse(where)).scalar_subquery(), type_=ARRAY(BIGINT()))


@contextmanager
def _told() -> Iterator[None]:
    """Say what the SQL functions raise in the words and classes of ``registry.errors``."""
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
    """A hint of PostgreSQL's, a sentence, as what follows a semicolon; SQL keeps its capitals."""
    first = sentence[0].lower() if sentence[1:2].islower() else sentence[0]
    return f"; {first}{sentence[1:].removesuffix('.')}"
