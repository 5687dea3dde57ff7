"""Splits as they are stored: lookup, members, summaries, and growth of the registry since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.errors import NotFoundError
from registry.models import Split, SplitMember
from registry.properties import property_named
from registry.splits.candidates import candidates

__all__ = [
    "MemberRow",
    "SplitSummary",
    "count_reasons",
    "find_split",
    "growth_since",
    "list_splits",
    "members",
    "split_summary",
]


@dataclass(frozen=True)
class MemberRow:
    """The assignment of one crystal in a split."""

    revision_id: int | None
    """None for an id of an imported file that the registry does not know."""
    source_id: str
    """``source:id``, or the id as an imported file gives it."""
    subset: str
    """cv, holdout or excluded."""
    fold: int | None
    """The fold that scores it; None outside cv."""
    reason: str | None
    """Reason why it is excluded; the kind of reason precedes the first colon."""


@dataclass(frozen=True)
class SplitSummary:
    """A split in numbers."""

    name: str
    target: str
    origin: str
    """rule or file."""
    seed: int | None
    created_at: datetime
    parameters: dict[str, Any]
    iqr_bounds: dict[str, Any] | None
    cv: int
    holdout: int
    excluded: int
    folds: dict[int, int] = field(default_factory=dict)
    """Members by fold."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Excluded members by kind of reason."""


def find_split(session: Session, name: str, target: str) -> Split:
    """The split of a name for a target.

    Raises
    ------
    UnknownNameError
        If there is no such property.
    NotFoundError
        If there is no such split; the message names those for the target.
    """
    property_named(target)
    split = session.scalars(select(Split).where(Split.name == name, Split.target == target)).one_or_none()
    if split is None:
        names = session.scalars(select(Split.name).where(Split.target == target).order_by(Split.name)).all()
        hint = f"there are: {', '.join(names)}" if names else "`ecdreg split create` creates one"
        raise NotFoundError(f"no split {name!r} for {target}; {hint}")
    return split


def members(session: Session, split_id: int) -> list[MemberRow]:
    """All members of a split, ordered by subset, fold and id."""
    rows = session.execute(
        select(SplitMember.revision_id, SplitMember.source_id, SplitMember.subset, SplitMember.fold, SplitMember.reason)
        .where(SplitMember.split_id == split_id)
        .order_by(SplitMember.subset, SplitMember.fold, SplitMember.source_id)
    )
    return [MemberRow(*row) for row in rows]


def growth_since(session: Session, split: Split) -> int:
    """Number of crystals that could be members by now, but did not exist when the split was created."""
    known = set(
        session.scalars(
            select(SplitMember.crystal_id).where(
                SplitMember.split_id == split.id,
                (SplitMember.subset != "excluded") | SplitMember.reason.startswith("IQR"),
            )
        )
    )
    found = candidates(session, split.target, split.parameters)
    return sum(candidate.reason is None and candidate.crystal_id not in known for candidate in found)


def list_splits(session: Session) -> list[SplitSummary]:
    """All splits in numbers, ordered by name and target."""
    return _summaries(session, session.scalars(select(Split).order_by(Split.name, Split.target)).all())


def split_summary(session: Session, name: str) -> list[SplitSummary]:
    """The splits of a name in numbers, one for each target.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    found = session.scalars(select(Split).where(Split.name == name).order_by(Split.target)).all()
    if not found:
        names = session.scalars(select(Split.name).distinct().order_by(Split.name)).all()
        hint = f"there are: {', '.join(names)}" if names else "`ecdreg split create` creates one"
        raise NotFoundError(f"no split {name!r}; {hint}")
    return _summaries(session, found)


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """Number of reasons of each kind, the most frequent first; the kind precedes the first colon."""
    return dict(Counter(reason.partition(":")[0] for reason in reasons).most_common())


def _summaries(session: Session, splits: Sequence[Split]) -> list[SplitSummary]:
    counts: dict[int, Counter[tuple[str, int | None]]] = {split.id: Counter() for split in splits}
    reasons: dict[int, list[str]] = {split.id: [] for split in splits}
    rows = session.execute(
        select(SplitMember.split_id, SplitMember.subset, SplitMember.fold, SplitMember.reason).where(
            SplitMember.split_id.in_(counts)
        )
    )
    for split_id, subset, fold, reason in rows:
        counts[split_id][subset, fold] += 1
        if reason is not None:
            reasons[split_id].append(reason)
    return [
        SplitSummary(
            name=split.name,
            target=split.target,
            origin=split.origin,
            seed=split.seed,
            created_at=split.created_at,
            parameters=split.parameters,
            iqr_bounds=split.iqr_bounds,
            cv=sum(n for (subset, _), n in counts[split.id].items() if subset == "cv"),
            holdout=counts[split.id]["holdout", None],
            excluded=counts[split.id]["excluded", None],
            folds=dict(sorted((fold, n) for (_, fold), n in counts[split.id].items() if fold is not None)),
            reasons=count_reasons(reasons[split.id]),
        )
        for split in splits
    ]
