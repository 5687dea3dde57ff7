"""Rows of a split: the rows to fit, and the holdout, which is separate by construction.

A fit receives :attr:`SplitRows.cv` alone; :attr:`SplitRows.holdout` is read once, by the refit, after everything has
been fitted. Values are in the unit of the target: whatever is fitted to them belongs to a model version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.errors import SplitError
from registry.models import Crystal, CrystalRevision, Property
from registry.properties import property_named
from registry.splits.reading import find_split, members
from train.features.crystals import CrystalInputs, read_crystals
from train.features.labels import Label, read_labels
from train.modalities import MODALITIES
from train.modalities.features import FeatureConfig

__all__ = ["Rows", "SplitRows", "inner_stop", "load_rows"]


@dataclass(frozen=True)
class Rows(CrystalInputs):
    """N crystals with a target."""

    material_keys: tuple[str, ...]
    """Equal for one material under several sources."""
    values: NDArray[np.float64]
    """(N,), in the unit of the target."""
    folds: NDArray[np.int64]
    """(N,), the fold that scores each row; -1 in the holdout."""

    def take(self, index: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> Self:
        """The rows of an index or a mask, in its order."""
        positions = np.arange(len(self))[index]
        return replace(
            super().take(index),
            material_keys=tuple(self.material_keys[i] for i in positions),
            values=self.values[positions],
            folds=self.folds[positions],
        )


@dataclass(frozen=True)
class SplitRows:
    """The rows of a split for its target."""

    split_id: int
    split: str
    target: str
    unit: str
    cv: Rows
    holdout: Rows
    auxiliary: NDArray[np.float64]
    """(N, A), values of A auxiliary targets of the cross-validated rows in their units; NaN where one is not known or
    is suspect."""

    @property
    def targets(self) -> NDArray[np.float64]:
        """Targets of the fit: (N,), or (N, 1 + A) where A auxiliary targets follow."""
        return np.column_stack([self.cv.values, self.auxiliary]) if self.auxiliary.shape[1] else self.cv.values

    @property
    def folds(self) -> list[int]:
        """Folds of the cross-validation, in order."""
        return [int(fold) for fold in np.unique(self.cv.folds)]


def load_rows(
    session: Session,
    split: str,
    *,
    target: str,
    inputs: Mapping[str, FeatureConfig],
    auxiliary: Sequence[str] = (),
) -> SplitRows:
    """Read the rows of a split.

    Parameters
    ----------
    session
        Only read.
    split
        Name of a split for ``target``.
    target
        Property to learn; of each crystal the value at the preferred level of theory, as in ``v_materials``.
    inputs
        What the model reads, by modality.
    auxiliary
        Auxiliary targets, whose values are read for the cross-validated rows alone.

    Raises
    ------
    NotFoundError
        If there is no such split or image recipe.
    SplitError
        If a row lacks an input or a value, or its value is suspect: a split is made for what its models read.
    """
    found = find_split(session, split, target)
    roles = [m for m in members(session, found.id) if m.subset in ("cv", "holdout") and m.revision_id is not None]
    ids = [int(m.revision_id) for m in roles if m.revision_id is not None]
    crystals = read_crystals(session, inputs, ids)
    labels = read_labels(session, target, ids)
    _check(crystals, labels, inputs, split=split, target=target)
    rows = Rows(
        **vars(crystals),
        material_keys=_material_keys(session, ids),
        values=np.array([label.value for label in labels], dtype=np.float64),
        folds=np.array([-1 if m.fold is None else m.fold for m in roles], dtype=np.int64),
    )
    cv = np.array([m.subset == "cv" for m in roles], dtype=bool)
    if not cv.any():
        raise SplitError(f"split {split!r} for {target} has no rows to train on; see `ecdreg split show {split}`")
    unit = session.scalar(select(Property.unit).where(Property.name == target))
    return SplitRows(
        split_id=found.id,
        split=split,
        target=target,
        unit=unit or "",
        cv=rows.take(cv),
        holdout=rows.take(~cv),
        auxiliary=_auxiliary(session, auxiliary, rows.revision_ids[cv].tolist()),
    )


def inner_stop(rows: Rows, fold: int | None, *, seed: int, share: float = 0.1) -> NDArray[np.bool_]:
    """Rows of a training fold that early stopping uses; nothing is fitted to them.

    Drawn by a seeded hash of the material, so that duplicates of a material stay together, and alike for
    every network of one seed and fold: a stack stops on rows that its towers have not been fitted to either.

    Parameters
    ----------
    rows
        The training fold: the rows that are not scored. N of them.
    fold
        The fold that is scored.
    seed
        Seed of the experiment.
    share
        Share of the materials, rounded up; at least one.

    Returns
    -------
    NDArray
        (N,) True for the rows that early stopping uses.

    Raises
    ------
    SplitError
        If fewer than two materials are left to fit.
    """
    ranks = {key: hashlib.sha256(f"{seed}:{fold}:stop:{key}".encode()).digest() for key in set(rows.material_keys)}
    count = max(1, int(np.ceil(share * len(ranks))))
    if len(ranks) - count < 2:
        raise SplitError(f"fold {fold} leaves {len(ranks)} materials to train on, which is too few; use fewer folds")
    chosen = set(sorted(ranks, key=ranks.__getitem__)[:count])
    return np.array([key in chosen for key in rows.material_keys], dtype=bool)


def _material_keys(session: Session, ids: Sequence[int]) -> tuple[str, ...]:
    found = dict(
        session.execute(
            select(CrystalRevision.id, Crystal.material_key)
            .join(Crystal, Crystal.id == CrystalRevision.crystal_id)
            .where(CrystalRevision.id.in_(ids))
        ).all()
    )
    return tuple(found[i] for i in ids)


def _auxiliary(session: Session, targets: Sequence[str], ids: Sequence[int]) -> NDArray[np.float64]:
    columns = []
    for target in targets:
        property_named(target)
        labels = read_labels(session, target, ids)
        columns.append([np.nan if one.value is None or one.suspect else one.value for one in labels])
    return np.array(columns, dtype=np.float64).T.reshape(len(ids), len(targets))


def _check(
    crystals: CrystalInputs,
    labels: Sequence[Label],
    inputs: Mapping[str, FeatureConfig],
    *,
    split: str,
    target: str,
) -> None:
    """Refuse rows without a value, with a suspect one, or without an input."""
    lacking = {
        f"no value of {target}": [i for i, label in enumerate(labels) if label.value is None],
        f"a suspect value of {target}": [i for i, label in enumerate(labels) if label.suspect],
    }
    for name, config in inputs.items():
        shas = crystals.columns[name].sha256
        lacking[f"no {MODALITIES[name].missing(config)}"] = [i for i, sha256 in enumerate(shas) if sha256 is None]
    for what, rows in lacking.items():
        if rows:
            raise SplitError(
                f"split {split!r} for {target} holds {len(rows)} crystals with {what} (first:"
                f" {crystals.source_ids[rows[0]]}); make a split for these inputs with `ecdreg split create`, or leave"
                " their tower out"
            )
