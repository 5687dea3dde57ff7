"""Lookup of crystals by id, with proposals for unknown ids."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from sqlalchemy import func, or_, select, tuple_
from sqlalchemy.orm import Session

from registry.errors import AmbiguousIdError, NotFoundError
from registry.models import Crystal, CrystalRevision

__all__ = ["ResolvedCrystal", "resolve"]


@dataclass(frozen=True)
class ResolvedCrystal:
    """A crystal and its current revision."""

    crystal_id: int
    revision_id: int
    source: str
    source_id: str
    formula: str


def resolve(session: Session, ident: str) -> ResolvedCrystal:
    """Find a crystal by its id, or by ``source:id``.

    Raises
    ------
    NotFoundError
        If there is none; the message names similar ids.
    AmbiguousIdError
        If several sources have the id; the message names them.
    """
    source, _, source_id = ident.partition(":")
    rows = session.execute(
        select(
            Crystal.id,
            CrystalRevision.id,
            Crystal.source,
            Crystal.source_id,
            CrystalRevision.formula,
        )
        .join(CrystalRevision)
        .where(
            CrystalRevision.is_current,
            or_(Crystal.source_id == ident, tuple_(Crystal.source, Crystal.source_id) == (source, source_id)),
        )
        .order_by(Crystal.source)
    ).all()
    if len(rows) == 1:
        return ResolvedCrystal(*rows[0])
    if rows:
        names = " or ".join(repr(f"{row.source}:{row.source_id}") for row in rows)
        raise AmbiguousIdError(f"crystal {ident!r} is in {len(rows)} sources; use {names}")
    raise NotFoundError(f"no crystal {ident!r}; {_proposal(session, source_id or ident)}")


def _proposal(session: Session, ident: str) -> str:
    same_formula = session.scalars(
        select(Crystal.source_id)
        .join(CrystalRevision)
        .where(CrystalRevision.is_current, CrystalRevision.formula == ident)
        .order_by(Crystal.id)
        .limit(3)
    ).all()
    if same_formula:
        return f"crystals of that formula: {', '.join(same_formula)}"
    # Ids of one source mostly differ in a few digits: those of a similar length come first.
    distance = func.abs(func.length(Crystal.source_id) - len(ident))
    ids = session.scalars(select(Crystal.source_id).order_by(distance, Crystal.id).limit(5000)).all()
    near = difflib.get_close_matches(ident, ids, n=3, cutoff=0.7)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return "`ecdreg ingest` adds crystals" if not ids else "v_materials lists them in `ecdreg db shell`"
