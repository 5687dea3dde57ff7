"""Crystals of the registry with the inputs of models, one column for each modality."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.errors import NotFoundError
from registry.models import Crystal, CrystalRevision
from train.modalities import MODALITIES, Column
from train.modalities.features import FeatureConfig

__all__ = ["CrystalInputs", "read_crystals"]


@dataclass(frozen=True)
class CrystalInputs:
    """N crystals with a column for each modality that is read, aligned.

    Pixels and density grids are not here: features are cached, and :meth:`train.modalities.Modality.load` reads raw
    inputs where they are needed.
    """

    revision_ids: NDArray[np.int64]
    """(N,)"""
    source_ids: tuple[str, ...]
    """``source:id``"""
    formulas: tuple[str, ...]
    columns: Mapping[str, Column]
    """By modality."""

    def __len__(self) -> int:
        return len(self.revision_ids)

    def take(self, index: NDArray[np.integer[Any]] | NDArray[np.bool_]) -> Self:
        """The rows of an index or a mask, in its order."""
        positions = np.arange(len(self))[index]
        return replace(
            self,
            revision_ids=self.revision_ids[positions],
            source_ids=tuple(self.source_ids[i] for i in positions),
            formulas=tuple(self.formulas[i] for i in positions),
            columns={name: column.take(positions) for name, column in self.columns.items()},
        )


def read_crystals(
    session: Session,
    inputs: Mapping[str, FeatureConfig],
    revision_ids: Iterable[int] | None = None,
    *,
    trained_on: Mapping[str, Any] | None = None,
) -> CrystalInputs:
    """Read the inputs of models for crystals: one query, and one for each modality.

    Parameters
    ----------
    session
        Only read.
    inputs
       Inputs, by modality.
    revision_ids
        Revisions, in this order; None: the current revision of every crystal.
    trained_on
        What a model was trained on, where it names the inputs exactly.

    Raises
    ------
    NotFoundError
        If there is no such revision.
    """
    query = select(CrystalRevision.id, Crystal.source + ":" + Crystal.source_id, CrystalRevision.formula).join(
        Crystal, Crystal.id == CrystalRevision.crystal_id
    )
    if revision_ids is None:
        rows = session.execute(query.where(CrystalRevision.is_current).order_by(CrystalRevision.id)).all()
    else:
        wanted = [int(i) for i in revision_ids]
        found = {row[0]: row for row in session.execute(query.where(CrystalRevision.id.in_(wanted)))}
        missing = [i for i in wanted if i not in found]
        if missing:
            raise NotFoundError(f"no crystal revision {missing[0]} in the registry")
        rows = [found[i] for i in wanted]
    ids, formulas = [row[0] for row in rows], [row[2] for row in rows]
    return CrystalInputs(
        revision_ids=np.array(ids, dtype=np.int64),
        source_ids=tuple(row[1] for row in rows),
        formulas=tuple(formulas),
        columns={
            name: MODALITIES[name].find(session, config, ids, formulas, trained_on=trained_on)
            for name, config in inputs.items()
        },
    )
