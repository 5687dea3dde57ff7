"""What a model is shown of crystals of the registry: cached frozen features, and raw inputs where they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from train.config.config import FIXED_MODALITIES, TrainConfig
from train.experiments.rows import crystal_inputs, load_images
from train.features.cache import FeatureCache, FeatureTable, input_sha256, recipe_channels
from train.features.featurizers import Featurizer
from train.models.fitting import Shown

__all__ = ["ModelInputs"]


class ModelInputs:
    """Inputs of one config's model for a set of crystals.

    Parameters
    ----------
    engine
        Pixels are read from it when backbones are fine-tuned.
    config
        Decides the modalities, the backbones and whether raw inputs are needed.
    revision_ids
        Crystals that the model is to be shown; None: the current revision of every crystal. Those that lack
        a modality are passed over.
    recipe_id
        Recipe of the images, for a config that has an image tower.
    cache
        Holds features and backbones from one experiment to the next.
    known
        By modality, the backbones as :func:`train.features.cache.described` gave them, where a model names them.
    raw_alone
        No frozen features of images and texts, for a model with backbones of its own.

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
        recipe_id: int | None,
        cache: FeatureCache,
        known: Mapping[str, Mapping[str, Any]] | None = None,
        raw_alone: bool = False,
    ) -> None:
        self._engine = engine
        self.config = config
        self.recipe_id = recipe_id
        with Session(engine) as session:
            crystals = crystal_inputs(
                session,
                revision_ids,
                recipe_id=recipe_id,
                text_level=config.text_level if "text" in config.towers else None,
                densities="density" in config.towers,
            )
            self._channels = recipe_channels(session, recipe_id) if recipe_id is not None else ()
        self.crystals = crystals
        self._cache = cache
        self.tables: dict[str, FeatureTable] = {
            modality: cache.table(config, modality, crystals, recipe_id=recipe_id, known=(known or {}).get(modality))
            for modality in self.modalities
            if not raw_alone or modality in FIXED_MODALITIES
        }
        self._texts = {int(rid): text for rid, text in zip(crystals.revision_ids, crystals.texts, strict=True)}

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of the frozen features: the towers', or the composition for the Magpie baseline."""
        return ("composition",) if self.config.kind == "baseline-magpie" else self.config.towers

    @property
    def backbones(self) -> dict[str, Featurizer]:
        """The pre-trained backbones of the towers; shared, never to be trained."""
        return {
            tower: self._cache.backbone(self.config, tower, channels=self._channels) for tower in self.config.towers
        }

    def shown(self, revision_ids: NDArray[np.int64], *, modalities: Sequence[str] | None = None) -> Shown:
        """What the model is shown of these crystals, in their order.

        Parameters
        ----------
        revision_ids
            (N,)
        modalities
            Of these alone; None: of all that it reads.

        Raises
        ------
        NotFoundError
            If one of them lacks a modality.
        """
        wanted = self.modalities if modalities is None else modalities
        features = {name: table.rows(revision_ids) for name, table in self.tables.items() if name in wanted}
        raw: dict[str, NDArray[np.float32] | list[str]] = {}
        if self.config.finetune_enabled:
            if "image" in wanted:
                raw["image"] = self.images(revision_ids)
            if "text" in wanted:
                raw["text"] = self._read(revision_ids)
        return Shown(n=len(revision_ids), features=features, raw=raw)

    def frozen(self, revision_ids: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Features of the pre-trained backbones by modality, (N, D) each: the same for every fold."""
        return {name: table.rows(revision_ids) for name, table in self.tables.items()}

    def complete(self) -> Iterator[tuple[NDArray[np.int64], list[str], Shown]]:
        """All crystals that can be encoded, in batches: revisions, checksums of their inputs, what is shown."""
        read = self.config.embedded
        shas = [input_sha256(self.crystals, row, read) for row in range(len(self.crystals))]
        rows = np.array([row for row, sha in enumerate(shas) if sha is not None], dtype=np.int64)
        # Pixels of all crystals at once may not fit into memory; features do.
        size = 128 if self.config.finetune_enabled else 4096
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            ids = self.crystals.revision_ids[batch]
            yield ids, [sha for row in batch if (sha := shas[row]) is not None], self.shown(ids, modalities=read)

    def images(self, revision_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Slices of these crystals, (N, C, H, W) in the unit of the recipe."""
        assert self.recipe_id is not None  # load_rows has found the recipe of every config with an image tower
        with Session(self._engine) as session:
            return load_images(session, [int(i) for i in revision_ids], recipe_id=self.recipe_id)

    def _read(self, revision_ids: NDArray[np.int64]) -> list[str]:
        return [self._texts[int(i)] or "" for i in revision_ids]
