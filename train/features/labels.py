"""Labels: known values of a property, at the preferred level of theory of each crystal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.orm import Session

from registry.errors import NotFoundError

__all__ = ["Label", "known_values", "read_labels", "suspect_values"]

_LABELS = text(
    """
SELECT r.id, v.value, v.suspect
FROM crystal_revisions r
LEFT JOIN LATERAL (
    SELECT p.value, p.suspect FROM property_values p JOIN levels_of_theory l ON l.name = p.level_of_theory
    WHERE p.revision_id = r.id AND p.property = :target
    ORDER BY l.preference, l.name LIMIT 1
) v ON true
WHERE r.id = ANY(:ids)
"""
).bindparams(bindparam("ids", type_=ARRAY(BIGINT)))


@dataclass(frozen=True)
class Label:
    """Value of a property of one crystal."""

    value: float | None
    """In the unit of the property; None where it is not known."""
    suspect: bool
    """Whether it is outside its plausible range."""


def read_labels(session: Session, target: str, revision_ids: Sequence[int]) -> list[Label]:
    """Labels of N revisions, in their order, in one query.

    Parameters
    ----------
    session
        Only read.
    target
        The property; its value at the preferred level of theory counts, as in ``v_materials``.
    revision_ids
        N revisions.

    Raises
    ------
    NotFoundError
        If there is no such revision.
    """
    ids = [int(i) for i in revision_ids]
    found = {row[0]: Label(row[1], bool(row[2])) for row in session.execute(_LABELS, {"target": target, "ids": ids})}
    missing = [i for i in ids if i not in found]
    if missing:
        raise NotFoundError(f"no crystal revision {missing[0]} in the registry")
    return [found[i] for i in ids]


def known_values(session: Session, target: str, revision_ids: Sequence[int]) -> dict[int, float]:
    """Known values of a property, in its unit, by revision; revisions without one are left out.

    Parameters
    ----------
    session, target, revision_ids
        As for :func:`read_labels`.

    Raises
    ------
    NotFoundError
        If there is no such revision.
    """
    labels = read_labels(session, target, revision_ids)
    return {int(i): one.value for i, one in zip(revision_ids, labels, strict=True) if one.value is not None}


def suspect_values(session: Session, target: str, revision_ids: Sequence[int]) -> set[int]:
    """Revisions whose known value is outside its plausible range.

    Parameters
    ----------
    session, target, revision_ids
        As for :func:`read_labels`.

    Raises
    ------
    NotFoundError
        If there is no such revision.
    """
    labels = read_labels(session, target, revision_ids)
    return {int(i) for i, one in zip(revision_ids, labels, strict=True) if one.suspect}
