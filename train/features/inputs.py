"""Inputs of a model: cached frozen features of crystals, and raw inputs where backbones are fine-tuned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from registry.files.grids import GridStore
from train.config.config import TrainConfig
from train.features.batch import Batch
from train.features.cache import FeatureCache, FeatureTable, input_sha256
from train.features.crystals import read_crystals
from train.featurizers.catalog import Featurizer
from train.modalities import MODALITIES

__all__ = ["ModelInputs"]


class ModelInputs:
    """Inputs of the model of one configuration for a set of crystals.

    Parameters
    ----------
    engine
        Raw inputs are read from it when backbones are fine-tuned.
    config
        States the modalities, the featurizers, and whether raw inputs are needed.
    revision_ids
        Crystals; None: the current revision of every crystal. Those that lack a modality have no features.
    cache
        Holds features and featurizers from one experiment to the next.
    trained_on
        What a trained model was trained on; with ``backbones`` among it, its featurizers are compared with these.
    raw_alone
        No frozen features of modalities whose backbones can be fine-tuned, for a model with backbones of its own.
    grids
        Store of density grids.

    Raises
    ------
    ModelError
        If no crystal has the inputs.
    """

    def __init__(
        self,
        engine: Engine,
        config: TrainConfig,
        revision_ids: list[int] | None,
        *,
        cache: FeatureCache,
        trained_on: Mapping[str, Any] | None = None,
        raw_alone: bool = False,
        grids: GridStore | None = None,
    ) -> None:
        self._engine = engine
        self._cache = cache
        self._grids = grids
        self.config = config
        with Session(engine) as session:
            self.crystals = read_crystals(session, config.inputs, revision_ids, trained_on=trained_on)
        known = (trained_on or {}).get("backbones", {})
        self.tables: dict[str, FeatureTable] = {
            name: cache.table(name, features, self.crystals, known=known.get(name))
            for name, features in config.inputs.items()
            if not raw_alone or not MODALITIES[name].trains_backbone
        }
        self._rows = {int(rid): row for row, rid in enumerate(self.crystals.revision_ids)}

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that the model reads."""
        return self.config.modalities

    @property
    def backbones(self) -> dict[str, Featurizer]:
        """Featurizers by modality; shared, never to be trained."""
        return {
            name: self._cache.featurizer(name, features, self.crystals) for name, features in self.config.inputs.items()
        }

    def batch(self, revision_ids: NDArray[np.int64], *, modalities: Sequence[str] | None = None) -> Batch:
        """Inputs of these crystals, in their order.

        Parameters
        ----------
        revision_ids
            (N,)
        modalities
            Of these alone; None: of all that the model reads.

        Raises
        ------
        NotFoundError
            If one of them lacks a modality.
        """
        wanted = self.modalities if modalities is None else modalities
        features = {name: table.rows(revision_ids) for name, table in self.tables.items() if name in wanted}
        raw: dict[str, Any] = {}
        if self.config.finetune_enabled:
            raw = {name: self.raw(name, revision_ids) for name in wanted if MODALITIES[name].trains_backbone}
        return Batch(n=len(revision_ids), features=features, raw=raw)

    def frozen(self, revision_ids: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Frozen features by modality, (N, D) each: the same for every fold."""
        return {name: table.rows(revision_ids) for name, table in self.tables.items()}

    def complete(self) -> Iterator[tuple[NDArray[np.int64], list[str], Batch]]:
        """All crystals that can be encoded, in batches: revisions, checksums of their inputs, and the inputs."""
        read = self.config.embedded
        shas = [input_sha256(self.crystals, row, read) for row in range(len(self.crystals))]
        rows = np.array([row for row, sha256 in enumerate(shas) if sha256 is not None], dtype=np.int64)
        # Pixels of all crystals at once may not fit into memory; features do.
        size = 128 if self.config.finetune_enabled else 4096
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            ids = self.crystals.revision_ids[part]
            yield ids, [sha256 for row in part if (sha256 := shas[row]) is not None], self.batch(ids, modalities=read)

    def raw(self, modality: str, revision_ids: NDArray[np.int64]) -> Any:
        """Raw inputs of these crystals: pixels (N, C, H, W) in the unit of the recipe, or N texts."""
        ids = [int(i) for i in revision_ids]
        with Session(self._engine) as session:
            return MODALITIES[modality].load(
                session, self.crystals.columns[modality], [self._rows[i] for i in ids], ids, grids=self._grids
            )
