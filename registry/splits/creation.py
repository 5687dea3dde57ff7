"""Creation of splits, by rule or from a file: a fixed assignment of crystals to cv, holdout or excluded.

A rule assigns each material by a seeded hash of its key alone: duplicates stay together, and crystals that are added
later change no assignment. Crystals that cannot be used are members too, excluded with the reason. A split never
changes; another one gets another name.
"""

from __future__ import annotations

import csv
import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from registry.errors import ConfigurationError, SplitError
from registry.models import Split, SplitMember
from registry.splits.candidates import Candidate, assign, candidates, exclude_outliers
from registry.splits.reading import count_reasons, members

__all__ = [
    "DEFAULT_SPLIT",
    "SplitRule",
    "create_split",
    "ensure_default_split",
    "import_split",
]

_log = logging.getLogger("registry")

DEFAULT_SPLIT = "default"
"""Name of the split that training creates where none is named."""


@dataclass(frozen=True)
class SplitRule:
    """Rule that assigns crystals to cv, holdout or excluded."""

    seed: int = 0
    """Seed of the hash; another one gives another assignment."""
    n_folds: int = 5
    """Folds of the cross-validation, numbered from 0."""
    holdout: float = 0.15
    """Share of the materials that no model is fitted to, between 0 and 1."""
    recipe: str | None = "metric"
    """Image recipe of which every member must have a slice; None where no image is needed."""
    text_level: str | None = "keywords"
    """Text level of the description that every member must have; None where no text is needed."""
    iqr: float | None = None
    """Exclude crystals with a slice maximum or minimum more than ``iqr`` interquartile ranges outside the quartiles of
    cv (Tukey's fences; 1.5 is usual); None excludes none."""
    iqr_kind: str | None = None
    """Slices that ``iqr`` applies to: spin, total or deformation (the recipes ``paper``, ``paper-total``,
    ``paper-deformation``), or any recipe, as ``NAME`` or ``NAME:CHANNEL``. None: those of ``recipe``."""
    sources: Sequence[str] | None = None
    """Only crystals of these sources; None: of all."""

    def __post_init__(self) -> None:
        if not 2 <= self.n_folds <= 1000:
            raise ConfigurationError(f"{self.n_folds} folds; give 2 to 1000")
        if not 0 < self.holdout < 1:
            raise ConfigurationError(f"a holdout of {self.holdout:g} of the materials; give a share between 0 and 1")
        if self.iqr is not None and not 0 <= self.iqr < float("inf"):
            raise ConfigurationError(f"an IQR factor of {self.iqr:g}; give a positive number, 1.5 is usual")
        if self.iqr is None and self.iqr_kind is not None:
            raise ConfigurationError(f"slices {self.iqr_kind!r} to clean by, but no IQR factor; give one, 1.5 is usual")
        if self.iqr is not None and self.iqr_kind is None and self.recipe is None:
            raise ConfigurationError(
                "an IQR factor, but no slices to look at; name spin, total, deformation or a recipe"
            )

    @property
    def parameters(self) -> dict[str, Any]:
        """The rule as it is stored with a split, without seed and folds, which have columns of their own."""
        return {
            "holdout": self.holdout,
            "recipe": self.recipe,
            "text_level": self.text_level,
            "iqr": self.iqr,
            "iqr_kind": self.iqr_kind,
            "sources": sorted(self.sources) if self.sources is not None else None,
        }

    def assign(self, candidate: Candidate) -> tuple[str, int | None]:
        """Subset and fold of a candidate."""
        return assign(candidate, seed=self.seed, n_folds=self.n_folds, holdout=self.holdout)


def create_split(session: Session, name: str, *, target: str, rule: SplitRule | None = None) -> Split:
    """Create a split by rule, or return the existing one of the same rule and crystals.

    Parameters
    ----------
    session
        The split is added to it.
    name
        Name of the split; one name may serve several targets.
    target
        Property that models are trained on.
    rule
        Rule of the assignment; default: ``SplitRule()``.

    Raises
    ------
    UnknownNameError
        If there is no such property.
    NotFoundError
        If no crystal has an image of the recipe.
    SplitError
        If a fold or the holdout would be empty, or the name is taken by another split.
    ConfigurationError
        If the name is empty.
    """
    if not name.strip():
        raise ConfigurationError("a split needs a name")
    rule = rule or SplitRule()
    found = candidates(session, target, rule.parameters)
    bounds = None
    if rule.iqr is not None:
        held_out = {c.revision_id for c in found if rule.assign(c)[0] == "holdout"}
        slices = rule.iqr_kind or rule.recipe or ""
        found, bounds = exclude_outliers(session, found, factor=rule.iqr, slices=slices, held_out=held_out)
    rows = [_member_row(candidate, *rule.assign(candidate)) for candidate in found]
    split = Split(
        name=name, target=target, origin="rule", parameters=rule.parameters, seed=rule.seed, n_folds=rule.n_folds
    )
    if bounds is not None:  # None would be stored as JSON's null, which differs from SQL's
        split.iqr_bounds = bounds
    return _store(session, split, rows, folds=range(rule.n_folds))


def import_split(
    session: Session,
    name: str | None,
    path: Path,
    *,
    target: str,
    recipe: str | None = "metric",
    text_level: str | None = "keywords",
    sources: Sequence[str] | None = None,
) -> Split:
    """Import a split from a CSV file with the columns ``id``, ``subset``, ``fold``.

    Parameters
    ----------
    name
        Name of the split; None: that of the file, without its ending.
    path
        ``id`` is a crystal's id or ``source:id``; ``subset`` is cv or holdout; ``fold`` is a number
        from 0 for cv, empty for the holdout. Fold numbers are kept.
    target, recipe, text_level
        As in :func:`create_split`: crystals without one of them are excluded, as are unknown ids and suspect
        values, each with the reason.
    sources
        Look up the ids in these sources only; None: in all.

    Raises
    ------
    SplitError
        If the file cannot be used (with its line), if a fold or the holdout would be empty, or the name
        is taken by another split.
    UnknownNameError, NotFoundError
        As in :func:`create_split`.
    """
    name = name or path.stem
    entries, sha256 = _read_file(path)
    parameters: dict[str, Any] = {
        "file": path.name,
        "sha256": sha256,
        "recipe": recipe,
        "text_level": text_level,
        "sources": sorted(sources) if sources is not None else None,
    }
    by_id: dict[str, list[Candidate]] = {}
    for candidate in candidates(session, target, parameters):
        for ident in (candidate.source_id, candidate.name):
            by_id.setdefault(ident, []).append(candidate)
    rows: list[dict[str, Any]] = []
    lines: dict[int, int] = {}
    parts: dict[str, set[tuple[str, int | None]]] = {}
    for entry in entries:
        found = by_id.get(entry.ident, [])
        if len(found) > 1:
            names = " or ".join(candidate.name for candidate in found)
            raise SplitError(
                f"{path}, line {entry.line}: id {entry.ident!r} is in {len(found)} sources; write {names}, or name the"
                " source to look in"
            )
        if not found:
            reason = f"unknown: no crystal {entry.ident!r} in the registry"
            rows.append(_row(None, None, entry.ident, "excluded", None, reason))
            continue
        candidate = found[0]
        if lines.setdefault(candidate.crystal_id, entry.line) != entry.line:
            raise SplitError(
                f"{path}, line {entry.line}: crystal {entry.ident!r} stands in line {lines[candidate.crystal_id]}"
                " already; keep one of them"
            )
        rows.append(_member_row(candidate, entry.subset, entry.fold) | {"source_id": entry.ident})
        if candidate.reason is None:
            parts.setdefault(candidate.material_key, set()).add((entry.subset, entry.fold))
    # An imported split may leak between folds; it is kept as it is, and this records the leaks.
    parameters["materials_in_several_parts"] = sorted(key for key, where in parts.items() if len(where) > 1)
    folds = sorted({entry.fold for entry in entries if entry.fold is not None})
    if len(folds) < 2:
        raise SplitError(f"{path}: {len(folds)} folds in the subset cv; a cross-validation needs at least two")
    split = Split(name=name, target=target, origin="file", parameters=parameters, seed=None, n_folds=len(folds))
    return _store(session, split, rows, folds=folds)


def ensure_default_split(
    session: Session,
    target: str,
    *,
    recipe: str | None = "metric",
    text_level: str | None = "keywords",
) -> Split:
    """The split named ``default`` for a target, created when it is first needed and then kept.

    85 % cv in 5 folds, 15 % holdout, seed 0. Crystals that were added later are not in it:
    :func:`registry.splits.reading.growth_since` counts them.

    Parameters
    ----------
    target, recipe, text_level
        As in :func:`create_split`; the recipe and the text level count only where the split is created.

    Raises
    ------
    UnknownNameError, NotFoundError, SplitError
        As in :func:`create_split`.
    """
    split = session.scalars(select(Split).where(Split.name == DEFAULT_SPLIT, Split.target == target)).one_or_none()
    return split or create_split(
        session, DEFAULT_SPLIT, target=target, rule=SplitRule(recipe=recipe, text_level=text_level)
    )


@dataclass(frozen=True)
class _Entry:
    line: int
    ident: str
    subset: str
    fold: int | None


def _read_file(path: Path) -> tuple[list[_Entry], str]:
    """Entries of a split file, and its checksum."""
    try:
        data = path.read_bytes()
        lines = data.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise SplitError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SplitError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from error
    reader = csv.DictReader(lines)
    for column in ("id", "subset", "fold"):
        if column not in (reader.fieldnames or []):
            raise SplitError(f"{path}, line 1: no column {column!r}; the columns are id, subset, fold")
    entries: dict[str, _Entry] = {}
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        ident, subset, fold = ((row[column] or "").strip() for column in ("id", "subset", "fold"))
        if not ident:
            raise SplitError(f"{where}: no id")
        if ident in entries:
            raise SplitError(f"{where}: id {ident!r} stands in line {entries[ident].line} already; keep one of them")
        if subset not in ("cv", "holdout"):
            raise SplitError(f"{where}: subset {subset!r} of {ident!r}; give cv or holdout")
        if subset == "holdout" and fold:
            raise SplitError(f"{where}: {ident!r} is in the holdout and in fold {fold!r}; leave its fold empty")
        if subset == "cv" and not (fold.isascii() and fold.isdecimal() and int(fold) < 2**15):
            raise SplitError(f"{where}: fold {fold!r} of {ident!r}; a member of cv needs a number from 0")
        entries[ident] = _Entry(reader.line_num, ident, subset, int(fold) if fold else None)
    return list(entries.values()), hashlib.sha256(data).hexdigest()


def _member_row(candidate: Candidate, subset: str, fold: int | None) -> dict[str, Any]:
    ids = (candidate.crystal_id, candidate.revision_id, candidate.name)
    if candidate.reason is not None:
        return _row(*ids, "excluded", None, candidate.reason)
    return _row(*ids, subset, fold, None)


def _row(
    crystal_id: int | None, revision_id: int | None, source_id: str, subset: str, fold: int | None, reason: str | None
) -> dict[str, Any]:
    return {
        "crystal_id": crystal_id,
        "revision_id": revision_id,
        "source_id": source_id,
        "subset": subset,
        "fold": fold,
        "reason": reason,
    }


def _store(session: Session, split: Split, rows: list[dict[str, Any]], *, folds: Iterable[int]) -> Split:
    """Write a split, or return the existing one that equals it."""
    taken = session.scalars(select(Split).where(Split.name == split.name, Split.target == split.target)).one_or_none()
    if taken is not None:
        if _rule(taken) == _rule(split) and _membership(session, taken) == {_membership_of(row) for row in rows}:
            return taken
        raise SplitError(
            f"split {split.name!r} for {split.target} exists with other parameters or crystals, and a split never"
            " changes; choose another name"
        )
    _check_filled(split, rows, folds)
    session.add(split)
    session.flush()
    session.execute(insert(SplitMember), [{"split_id": split.id, **row} for row in rows])
    _log.info("created split %r for %s with %d members", split.name, split.target, len(rows))
    return split


def _check_filled(split: Split, rows: list[dict[str, Any]], folds: Iterable[int]) -> None:
    filled = Counter((row["subset"], row["fold"]) for row in rows)
    empty = ["the holdout"] if not filled["holdout", None] else []
    empty += [f"fold {fold}" for fold in folds if not filled["cv", fold]]
    if not empty:
        return
    usable = sum(row["subset"] != "excluded" for row in rows)
    reasons = count_reasons(row["reason"] for row in rows if row["reason"] is not None)
    out = "".join(f", {n} {kind}" for kind, n in reasons.items())
    hint = ""
    if split.name == DEFAULT_SPLIT and usable >= 3:  # made by a training without options for splits
        hint = f": `ecdreg split create NAME --target {split.target} --folds 2`, then train with `--split NAME`"
    raise SplitError(
        f"split {split.name!r} for {split.target}: {' and '.join(empty)} would be empty ({usable} of {len(rows)}"
        f" crystals can take part{out}); ingest more crystals, or choose fewer folds or another seed{hint}"
    )


def _rule(split: Split) -> tuple[Any, ...]:
    return split.origin, split.parameters, split.seed, split.n_folds


def _membership_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["source_id"], row["revision_id"], row["subset"], row["fold"]


def _membership(session: Session, split: Split) -> set[tuple[Any, ...]]:
    return {_membership_of(vars(member)) for member in members(session, split.id)}
