"""Splits as users make, import and read them: one call for several targets.

:mod:`registry.splits` has the rules and the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from ecdreg.results import Results
from registry.database import session_scope
from registry.properties import TARGETS
from registry.splits import creation, reading
from registry.splits.reading import MemberRow, SplitSummary

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection

__all__ = ["SplitMembers", "SplitSummary", "create_split", "import_split", "list_splits", "show_split"]


@dataclass(frozen=True)
class SplitMembers:
    """The split of one target, with its members where they were requested."""

    summary: SplitSummary
    members: tuple[MemberRow, ...] | None
    """None where they were not requested."""

    def to_dict(self) -> dict[str, Any]:
        """The row of the JSON output: the summary, with the members where they were requested."""
        members = {} if self.members is None else {"members": [asdict(member) for member in self.members]}
        return asdict(self.summary) | members


def create_split(
    registry: RegistryConnection,
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
) -> Results[SplitSummary]:
    """Make a split by the rule of :func:`registry.splits.creation.create_split`, for one or several targets.

    Parameters
    ----------
    registry
        An open registry.
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
    Results of SplitSummary
        One for each target.

    Raises
    ------
    UnknownNameError, NotFoundError, SplitError, ConfigurationError
        As :func:`registry.splits.creation.create_split`.
    """
    chosen = list(dict.fromkeys(targets or TARGETS))
    rule = creation.SplitRule(
        seed=seed,
        n_folds=folds,
        holdout=holdout,
        recipe=recipe,
        text_level=text_level,
        iqr=iqr,
        iqr_kind=iqr_kind,
        sources=sources or None,
    )
    with session_scope(registry.engine) as session:
        for target in chosen:
            creation.create_split(session, name, target=target, rule=rule)
        return Results(tuple(s for s in reading.split_summary(session, name) if s.target in chosen))


def import_split(
    registry: RegistryConnection,
    file: Path,
    *,
    targets: Sequence[str],
    name: str | None = None,
    recipe: str | None = "metric",
    text_level: str | None = "keywords",
    sources: Sequence[str] | None = None,
) -> Results[SplitSummary]:
    """Import a split from a CSV file, for one or several targets.

    Parameters
    ----------
    registry
        An open registry.
    file
        CSV with the columns ``id``, ``subset`` and ``fold``; see :func:`registry.splits.creation.import_split`.
    targets
        Properties that the split is for.
    name
        Name of the split; None: that of the file, without its ending.
    recipe, text_level, sources
        As of :func:`create_split`.

    Raises
    ------
    UnknownNameError, NotFoundError, SplitError
        As :func:`registry.splits.creation.import_split`.

    Returns
    -------
    Results of SplitSummary
        One for each target; the warnings name materials that are in more than one fold or subset.
    """
    with session_scope(registry.engine) as session:
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
    return Results(tuple(found), warnings=tuple(warnings))


def list_splits(registry: RegistryConnection) -> Results[SplitSummary]:
    """List all splits, ordered by name and target."""
    with session_scope(registry.engine) as session:
        found = tuple(reading.list_splits(session))
    notes = () if found else ("no splits yet; `ecdreg split create default` makes one, and so does the first training",)
    return Results(found, notes)


def show_split(
    registry: RegistryConnection, name: str, *, targets: Sequence[str] | None = None, members: bool = False
) -> Results[SplitMembers]:
    """Read a split, one entry for each target.

    Parameters
    ----------
    registry
        An open registry.
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
    with session_scope(registry.engine) as session:
        for target in targets or ():
            reading.find_split(session, name, target)
        found = [s for s in reading.split_summary(session, name) if not targets or s.target in targets]
        return Results(tuple(SplitMembers(s, _members(session, name, s.target) if members else None) for s in found))


def _members(session: Session, name: str, target: str) -> tuple[MemberRow, ...]:
    return tuple(reading.members(session, reading.find_split(session, name, target).id))
