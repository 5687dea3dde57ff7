"""Splits as users make, import and read them: one call for several targets.

:mod:`registry.splits` has the rules and the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from registry.properties import TARGETS
from registry.splits import creation, reading
from registry.splits.reading import MemberRow, SplitSummary, list_splits

__all__ = ["ImportedSplits", "SplitMembers", "create_splits", "import_splits", "list_splits", "show_split"]


@dataclass(frozen=True)
class ImportedSplits:
    """Splits that were read from a file."""

    splits: tuple[SplitSummary, ...]
    """One for each target."""
    warnings: tuple[str, ...]
    """Materials that are in more than one fold or subset."""


@dataclass(frozen=True)
class SplitMembers:
    """The split of one target, with its members where they were requested."""

    summary: SplitSummary
    members: tuple[MemberRow, ...] | None
    """None where they were not requested."""


def create_splits(
    session: Session,
    name: str,
    *,
    targets: Sequence[str] | None = None,
    seed: int = 0,
    folds: int = 5,
    holdout: float = 0.15,
    recipe: str | None = "metric",
    text_level: str | None = "keywords",
    iqr: float | None = None,
    iqr_kind: str | None = None,
    sources: Sequence[str] | None = None,
) -> list[SplitSummary]:
    """Make a split by the rule of :func:`registry.splits.creation.create_split`, for one or several targets.

    Parameters
    ----------
    session
        Written to, not committed.
    name
        Name of the split.
    targets
        Properties; None: the three of the paper.
    seed
        Seed of the assignment.
    folds
        Folds of the cross-validation.
    holdout
        Share of the materials that is held out.
    recipe, text_level
        Image recipe and text level that every member must have; None requires none.
    iqr
        Factor of Tukey's fences on the extremes of the slices; None excludes no outlier.
    iqr_kind
        Slices that ``iqr`` is applied to: spin, total, deformation, ``RECIPE`` or ``RECIPE:CHANNEL``; None: those of
        ``recipe``.
    sources
        Only crystals of these sources; None: of all.

    Returns
    -------
    list of SplitSummary
        One for each target.

    Raises
    ------
    UnknownNameError, NotFoundError, SplitError, ConfigurationError
        As :func:`registry.splits.creation.create_split`.
    """
    chosen = list(dict.fromkeys(targets or TARGETS))
    for target in chosen:
        creation.create_split(
            session,
            name,
            target=target,
            seed=seed,
            n_folds=folds,
            holdout=holdout,
            recipe=recipe,
            text_level=text_level,
            iqr=iqr,
            iqr_kind=iqr_kind,
            sources=sources or None,
        )
    return [summary for summary in reading.split_summary(session, name) if summary.target in chosen]


def import_splits(
    session: Session,
    file: Path,
    *,
    targets: Sequence[str],
    name: str | None = None,
    recipe: str | None = "metric",
    text_level: str | None = "keywords",
    sources: Sequence[str] | None = None,
) -> ImportedSplits:
    """Import a split from a CSV file, for one or several targets.

    Parameters
    ----------
    session
        Written to, not committed.
    file
        CSV with the columns ``id``, ``subset`` and ``fold``; see :func:`registry.splits.creation.import_split`.
    targets
        Properties that the split is for.
    name
        Name of the split; None: that of the file, without its ending.
    recipe, text_level, sources
        As of :func:`create_splits`.

    Raises
    ------
    UnknownNameError, NotFoundError, SplitError
        As :func:`registry.splits.creation.import_split`.
    """
    made = [
        creation.import_split(
            session, name, file, target=target, recipe=recipe, text_level=text_level, sources=sources or None
        )
        for target in dict.fromkeys(targets)
    ]
    found = [s for s in reading.split_summary(session, made[0].name) if s.target in targets] if made else []
    warnings = []
    for summary in found:
        leaking = summary.parameters.get("materials_in_several_parts") or []
        if leaking:
            named = ", ".join(leaking[:5]) + (", ..." if len(leaking) > 5 else "")
            warnings.append(f"{summary.target}: {len(leaking)} materials are in more than one fold or subset: {named}")
    return ImportedSplits(tuple(found), tuple(warnings))


def show_split(
    session: Session, name: str, *, targets: Sequence[str] | None = None, members: bool = False
) -> list[SplitMembers]:
    """Read a split, one entry for each target.

    Parameters
    ----------
    session
        Only read.
    name
        Name of the split.
    targets
        Only these properties; None: all that the split is for.
    members
        Whether the members are read too.

    Raises
    ------
    UnknownNameError, NotFoundError
        If there is no such property or split.
    """
    for target in targets or ():
        reading.find_split(session, name, target)
    found = [s for s in reading.split_summary(session, name) if not targets or s.target in targets]
    return [SplitMembers(s, _members(session, name, s.target) if members else None) for s in found]


def _members(session: Session, name: str, target: str) -> tuple[MemberRow, ...]:
    return tuple(reading.members(session, reading.find_split(session, name, target).id))
