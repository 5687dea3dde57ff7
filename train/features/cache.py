"""Cache of features: vectors of frozen featurizers, computed once for each crystal and kept as embeddings.

A frozen featurizer is a pre-trained backbone with the recipe or text level that it reads, or a fixed rule on a
composition or a density. Nothing in it is fitted, so its features belong to the crystal and not to a split. Encoders
are named like ``efficientnet_lite0:metric`` and ``minilm:keywords``. Stored features are read in one query; missing
ones, and those of another input, are computed and committed in batches, so that an interruption loses one batch at
most.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.database import session_scope
from registry.encoders import EncoderKey, assign_name, ensure_encoder, read_embeddings, write_embeddings
from registry.errors import ArtifactError, ModelError, NotFoundError
from registry.files.grids import GridStore
from registry.jobs.progress import Progress
from train.config_base import validated
from train.features.crystals import CrystalInputs, read_crystals
from train.featurizers.catalog import DENSITY_FEATURIZERS, CombinedFeaturizer, Featurizer
from train.modalities import MODALITIES, restore_featurizer
from train.modalities.features import FeatureConfig

__all__ = ["FeatureCache", "FeatureTable", "add_encoder", "check_known", "described", "input_sha256"]

_log = logging.getLogger("train")

_BATCH = 64
"""Crystals between two commits."""


@dataclass(frozen=True)
class FeatureTable:
    """Features of one encoder for a set of crystals."""

    encoder_id: int
    encoder: str
    """Name of the encoder."""
    identity_sha256: str
    """Of the encoder's weights and preprocessing."""
    dim: int
    index: dict[int, int]
    """Row of each revision."""
    vectors: NDArray[np.float32]
    """(N, dim)"""

    def rows(self, revision_ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Features of the given revisions, (M, dim), in their order.

        Raises
        ------
        NotFoundError
            If one of them has none.
        """
        missing = [int(i) for i in revision_ids if int(i) not in self.index]
        if missing:
            raise NotFoundError(f"no features of {self.encoder} for revision {missing[0]}")
        return self.vectors[[self.index[int(i)] for i in revision_ids]]


class FeatureCache:
    """Frozen features and the featurizers that make them, each loaded at most once.

    Parameters
    ----------
    engine
        Features are read from it, and written to it batch by batch.
    models
        Folder of pre-trained backbones; None is ``ECDREG_MODELS``.
    progress
        Receives what is computed.
    grids
        Store of density grids, for models that read densities.
    """

    def __init__(
        self, engine: Engine, *, models: Path | None, progress: Progress, grids: GridStore | None = None
    ) -> None:
        self._engine = engine
        self._models = models
        self._progress = progress
        self._grids = grids
        self._featurizers: dict[str, Featurizer] = {}
        self._tables: dict[tuple[int, str], FeatureTable] = {}
        self._results: dict[str, NDArray[np.float64]] = {}

    def featurizer(self, modality: str, config: FeatureConfig, crystals: CrystalInputs) -> Featurizer:
        """The featurizer that a configuration names for a modality; shared, never to be trained.

        Parameters
        ----------
        modality
            Name in ``MODALITIES``.
        config
            Names the featurizer.
        crystals
            The crystals that it will read.

        Raises
        ------
        ConfigurationError
            If it cannot be found here.
        """
        return self._load(MODALITIES[modality].spec(config, crystals.columns[modality]))

    def once(self, key: str, compute: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        """A result that several experiments of this process need and that is not stored, computed once.

        Parameters
        ----------
        key
            Checksum of everything that the result depends on.
        compute
            Computes it.
        """
        if key not in self._results:
            self._results[key] = compute()
        return self._results[key]

    def table(
        self,
        modality: str,
        config: FeatureConfig,
        crystals: CrystalInputs,
        *,
        known: Mapping[str, Any] | None = None,
    ) -> FeatureTable:
        """Frozen features of every crystal that has the modality.

        Parameters
        ----------
        modality
            Name in ``MODALITIES``.
        config
            Names the featurizer and what it reads.
        crystals
            Crystals; those without the modality are left out.
        known
            The featurizer as :func:`described` gave it; then it is loaded only if a feature is missing.

        Raises
        ------
        ConfigurationError
            If the featurizer cannot be found here.
        ArtifactError
            If the featurizer found here is not the known one.
        ModelError
            If no crystal has the modality.
        """
        one, column = MODALITIES[modality], crystals.columns[modality]

        def load() -> Featurizer:
            featurizer = self.featurizer(modality, config, crystals)
            if known is not None:
                check_known(featurizer, known)
            return featurizer

        # Features that are combined of others take these from where they may be stored already.
        parts = self._parts(load(), crystals) if known is None else {}

        def compute(session: Session, positions: list[int]) -> NDArray[np.float32]:
            featurizer = load()
            ids = crystals.revision_ids[positions]
            if isinstance(featurizer, CombinedFeaturizer) and parts:
                return featurizer.combined({part: table.rows(ids) for part, table in parts.items()})
            inputs = one.load(session, column, positions, [int(i) for i in ids], grids=self._grids)
            return featurizer.features(inputs)

        identity = dict(known) if known is not None else described(load())
        return self._table(modality, config, crystals, compute, identity=identity, newest=known is None)

    def _load(self, spec: Mapping[str, Any]) -> Featurizer:
        key = json_sha256(spec)
        if key not in self._featurizers:
            self._featurizers[key] = restore_featurizer(spec, models=self._models)
        return self._featurizers[key]

    def _parts(self, featurizer: Featurizer, crystals: CrystalInputs) -> dict[str, FeatureTable]:
        if not isinstance(featurizer, CombinedFeaturizer):
            return {}
        configs = {part: (name, _named(name, part)) for part, name in featurizer.parts.items()}
        with Session(self._engine) as session:
            read = read_crystals(session, dict(configs.values()), crystals.revision_ids.tolist())
        return {part: self.table(name, config, read) for part, (name, config) in configs.items()}

    def _table(
        self,
        modality: str,
        config: FeatureConfig,
        crystals: CrystalInputs,
        compute: Callable[[Session, list[int]], NDArray[np.float32]],
        *,
        identity: Mapping[str, Any],
        newest: bool,
    ) -> FeatureTable:
        column = crystals.columns[modality]
        named = MODALITIES[modality].encoder(config, column)
        wanted = {
            int(crystals.revision_ids[i]): (i, sha256) for i, sha256 in enumerate(column.sha256) if sha256 is not None
        }
        if not wanted:
            raise ModelError(f"no crystal has the input of {named.name}; ingest with this recipe or text level first")
        with session_scope(self._engine) as session:
            encoder = ensure_encoder(
                session,
                EncoderKey(
                    weights_sha256=identity["weights_sha256"],
                    recipe_id=named.recipe_id,
                    text_level=named.text_level,
                    preprocessing=identity["preprocessing"],
                ),
                name=named.name,
                modality=modality,
                dim=identity["dim"],
            )
            # Features by a rule keep their name for the present rule.
            renames = newest and not MODALITIES[modality].trains_backbone
            if renames and (older := assign_name(session, encoder, named.name)) is not None:
                self._progress.message(
                    f"{named.name!r} is computed by another rule than before; the vectors of the former rule belong to"
                    f" the encoder {older!r} from now on"
                )
            encoder_id, encoder_name = encoder.id, encoder.name
        memo = (encoder_id, json_sha256(sorted((rid, sha256) for rid, (_, sha256) in wanted.items())))
        if memo in self._tables:
            return self._tables[memo]
        vectors = self._complete(encoder_id, encoder_name, wanted, compute)
        table = FeatureTable(
            encoder_id=encoder_id,
            encoder=encoder_name,
            identity_sha256=json_sha256([identity["weights_sha256"], identity["preprocessing"]]),
            dim=identity["dim"],
            index={rid: row for row, rid in enumerate(vectors)},
            vectors=np.stack(list(vectors.values())),
        )
        self._tables[memo] = table
        return table

    def _complete(
        self,
        encoder_id: int,
        encoder_name: str,
        wanted: dict[int, tuple[int, str]],
        compute: Callable[[Session, list[int]], NDArray[np.float32]],
    ) -> dict[int, NDArray[np.float32]]:
        with Session(self._engine) as session:
            stored = read_embeddings(session, encoder_id, list(wanted))
        vectors = {rid: vector for rid, (sha256, vector) in stored.items() if sha256 == wanted[rid][1]}
        missing = [rid for rid in wanted if rid not in vectors]
        _log.info("encoder %s: %d vectors are stored, %d are missing", encoder_name, len(vectors), len(missing))
        if missing:
            self._progress.begin(f"features of {encoder_name}", len(missing))
            try:
                for start in range(0, len(missing), _BATCH):
                    batch = missing[start : start + _BATCH]
                    with session_scope(self._engine) as session:
                        made = compute(session, [wanted[rid][0] for rid in batch])
                        rows = [(rid, made[n], wanted[rid][1]) for n, rid in enumerate(batch)]
                        write_embeddings(session, encoder_id, rows)
                    vectors.update({rid: made[n] for n, rid in enumerate(batch)})
                    self._progress.advance(len(batch))
            finally:
                self._progress.end()
        return {rid: vectors[rid] for rid in wanted}


def add_encoder(
    engine: Engine, name: str, *, models: Path | None, progress: Progress, grids: GridStore | None = None
) -> int:
    """Give every crystal its features by a fixed rule as a vector, where it has none.

    Parameters
    ----------
    engine
        Written to batch by batch.
    name
        Name in ``COMPOSITION_FEATURIZERS`` or ``DENSITY_FEATURIZERS``.
    models
        Folder of pre-trained backbones; None is ``ECDREG_MODELS``.
    progress
        Receives what is computed.
    grids
        Store of density grids, for features of densities.

    Returns
    -------
    int
        Id of the encoder.

    Raises
    ------
    UnknownNameError
        If there are no such features.
    ModelError
        If no crystal has their input.
    """
    modality = "density" if name in DENSITY_FEATURIZERS else "composition"
    config = _named(modality, name)
    with Session(engine) as session:
        crystals = read_crystals(session, {modality: config})
    cache = FeatureCache(engine, models=models, progress=progress, grids=grids)
    return cache.table(modality, config, crystals).encoder_id


def described(featurizer: Featurizer) -> dict[str, Any]:
    """Identity of a featurizer as a JSON object: checksum of its weights, dimension, preprocessing."""
    return {
        "weights_sha256": featurizer.weights_sha256,
        "dim": featurizer.dim,
        "preprocessing": featurizer.preprocessing(),
    }


def check_known(featurizer: Featurizer, known: Mapping[str, Any]) -> None:
    """Make sure that a featurizer is the one that :func:`described` identified.

    Raises
    ------
    ArtifactError
        If its weights or its preprocessing differ.
    """
    if described(featurizer) != dict(known):
        raise ArtifactError(
            f"{featurizer.modality} backbone {featurizer.name!r} is not the one of the training: weights"
            f" {featurizer.weights_sha256[:12]} instead of {str(known['weights_sha256'])[:12]} or other preprocessing;"
            " restore that one, or train the model again"
        )


def input_sha256(crystals: CrystalInputs, row: int, modalities: Sequence[str]) -> str | None:
    """Checksum of the inputs of an encoder for one crystal; None where a modality is missing.

    Parameters
    ----------
    crystals
        With a column for each modality.
    row
        Row of the crystal.
    modalities
        What the encoder reads, in its order.
    """
    parts: list[str] = []
    for modality in modalities:
        sha256 = crystals.columns[modality].sha256[row]
        if sha256 is None:
            return None
        parts.append(sha256)
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


def _named(modality: str, name: str) -> FeatureConfig:
    """Features of a modality by the featurizer of this name."""
    config: FeatureConfig = validated(MODALITIES[modality].config, {"backbone": name})
    return config
