"""Features of frozen encoders, computed once for each crystal and kept as embeddings.

A frozen encoder is a pre-trained backbone with the recipe or text level that it reads, or features that a fixed
rule makes of a composition or a density; nothing in it is fitted, so its features belong to the crystal and not to a
split. They are named like ``efficientnet_lite0:metric`` and ``minilm:keywords``. What is there already
is read in one query; what is missing, or was made from another input, is computed and committed in
batches, so that a run that is cut off loses no more than a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.database import session_scope
from registry.encoders import ensure_encoder, read_embeddings, take_name, write_embeddings
from registry.errors import ArtifactError, ModelError, NotFoundError
from registry.files.grids import GridStore
from registry.jobs.progress import Progress
from registry.models import ImageRecipe, SliceImage, SliceInput
from registry.properties import TARGETS
from train.backbones.image_loaders import load_image_backbone
from train.backbones.text import load_text_backbone
from train.config.config import TrainConfig
from train.experiments.rows import Inputs, crystal_inputs, load_images, text_sha256
from train.features.densities import load_densities
from train.features.featurizers import DENSITY_FEATURIZERS, CombinedFeaturizer, Featurizer, load_featurizer
from train.features.loading import load_backbone

__all__ = [
    "FeatureCache",
    "FeatureTable",
    "add_encoder",
    "check_known",
    "described",
    "input_sha256",
    "recipe_channels",
]

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
    """Frozen features and the backbones that make them, each loaded at most once.

    Parameters
    ----------
    engine
        Features are read from it, and written to it batch by batch.
    models
        Folder of pre-trained backbones; None is ``ECDREG_MODELS``.
    progress
        Told of what is computed.
    grids
        Where the density grids lie, for models that read them.
    """

    def __init__(
        self, engine: Engine, *, models: Path | None, progress: Progress, grids: GridStore | None = None
    ) -> None:
        self._engine = engine
        self._models = models
        self._progress = progress
        self._grids = grids
        self._backbones: dict[str, Featurizer] = {}
        self._tables: dict[tuple[int, str], FeatureTable] = {}
        self._remembered: dict[str, NDArray[np.float64]] = {}

    def backbone(self, config: TrainConfig, modality: str, *, channels: Sequence[str] = ()) -> Featurizer:
        """The pre-trained backbone that a config names for a modality; shared, never to be trained.

        Parameters
        ----------
        config
            Names the backbone and what it sees.
        modality
            ``image``, ``text``, ``composition`` or ``density``.
        channels
            For images: what each channel shows, as :func:`recipe_channels` says.

        Raises
        ------
        ConfigurationError
            If the backbone cannot be resolved here.
        """
        if config.kind == "clip":
            half: dict[str, Any] = {"family": "clip", "modality": modality, "name": config.clip}
            half |= {"channels": list(channels)} if modality == "image" else {"max_tokens": config.max_tokens}
            key = json_sha256(half)
            if key not in self._backbones:
                self._backbones[key] = load_backbone(half, models=self._models)
        elif modality == "image":
            key = json_sha256(["image", config.image_backbone, list(channels), config.image_size])
            if key not in self._backbones:
                self._backbones[key] = load_image_backbone(
                    config.image_backbone, channels=list(channels), image_size=config.image_size, models=self._models
                )
        elif modality == "text":
            key = json_sha256(["text", config.text_backbone, config.max_tokens])
            if key not in self._backbones:
                self._backbones[key] = load_text_backbone(
                    config.text_backbone, max_tokens=config.max_tokens, models=self._models
                )
        else:
            name = config.fixed_backbone(modality)
            key = json_sha256([modality, name])
            if key not in self._backbones:
                self._backbones[key] = load_featurizer(modality, name)
        return self._backbones[key]

    def remember(self, key: str, compute: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        """What several experiments need and none stores: computed once for each key, and lost with the process.

        Parameters
        ----------
        key
            Checksum of everything that the answer depends on.
        compute
            Makes it.
        """
        if key not in self._remembered:
            self._remembered[key] = compute()
        return self._remembered[key]

    def table(
        self,
        config: TrainConfig,
        modality: str,
        inputs: Inputs,
        *,
        recipe_id: int | None,
        known: Mapping[str, Any] | None = None,
    ) -> FeatureTable:
        """Frozen features of every crystal of ``inputs`` that has the modality.

        Parameters
        ----------
        config
            Names the backbone and what it sees.
        modality
            ``image``, ``text``, ``composition`` or ``density``.
        inputs
            Crystals; those without an image (or text, or density) are passed over.
        recipe_id
            Recipe of the images.
        known
            The backbone as :func:`described` gave it; then it is loaded only if a feature is missing.

        Raises
        ------
        ConfigurationError
            If the backbone cannot be resolved here.
        ArtifactError
            If the backbone that is found here is not the one that is known.
        ModelError
            If features are asked for a modality that is unknown or that no crystal has.
        """
        if modality == "image":
            return self._images(config, inputs, recipe_id, known)
        if modality == "text":
            return self._texts(config, inputs, known)
        if modality in ("composition", "density"):
            return self._fixed(config, modality, inputs, known)
        raise ModelError(f"no frozen features of modality {modality!r}; there are image, text, composition and density")

    def _images(
        self, config: TrainConfig, inputs: Inputs, recipe_id: int | None, known: Mapping[str, Any] | None
    ) -> FeatureTable:
        if recipe_id is None:
            raise ModelError(f"no image recipe to compute features of {config.backbone('image')} from")
        with Session(self._engine) as session:
            name = session.scalars(select(ImageRecipe.name).where(ImageRecipe.id == recipe_id)).one()
            channels = recipe_channels(session, recipe_id)

        def compute(session: Session, positions: list[int]) -> NDArray[np.float32]:
            ids = [int(inputs.revision_ids[i]) for i in positions]
            return load().features(load_images(session, ids, recipe_id=recipe_id))

        load = self._loader(config, "image", channels, known)
        return self._table(
            f"{_short(config.backbone('image'))}:{name}",
            "image",
            inputs,
            [input_sha256(inputs, i, ("image",)) for i in range(len(inputs))],
            compute,
            identity=_Identity(**(known or described(load())), recipe_id=recipe_id),
        )

    def _texts(self, config: TrainConfig, inputs: Inputs, known: Mapping[str, Any] | None) -> FeatureTable:
        def compute(_: Session, positions: list[int]) -> NDArray[np.float32]:
            return load().features([inputs.texts[i] or "" for i in positions])

        load = self._loader(config, "text", (), known)
        return self._table(
            f"{_short(config.backbone('text'))}:{config.text_level}",
            "text",
            inputs,
            [input_sha256(inputs, i, ("text",)) for i in range(len(inputs))],
            compute,
            identity=_Identity(**(known or described(load())), text_level=config.text_level),
        )

    def _loader(
        self, config: TrainConfig, modality: str, channels: Sequence[str], known: Mapping[str, Any] | None
    ) -> Callable[[], Featurizer]:
        def load() -> Featurizer:
            backbone = self.backbone(config, modality, channels=channels)
            if known is not None:
                check_known(backbone, known)
            return backbone

        return load

    def _fixed(
        self, config: TrainConfig, modality: str, inputs: Inputs, known: Mapping[str, Any] | None
    ) -> FeatureTable:
        def compute(session: Session, positions: list[int]) -> NDArray[np.float32]:
            if modality == "composition":
                return load().features([inputs.formulas[i] for i in positions])
            ids = [int(inputs.revision_ids[i]) for i in positions]
            if isinstance(backbone, CombinedFeaturizer):
                return backbone.combined({part: table.rows(np.array(ids)) for part, table in tables.items()})
            if self._grids is None:
                raise ModelError("features of densities need a grid store; give FeatureCache one")
            return load().features(load_densities(session, self._grids, ids, [inputs.densities[i] for i in positions]))

        load = self._loader(config, modality, (), known)
        # What is made of other features takes them from where they may long have been.
        backbone = load() if known is None else None
        parts = backbone.parts if isinstance(backbone, CombinedFeaturizer) else {}
        tables = {
            part: self._fixed(_fixed_config(kind, part, config.target), kind, inputs, None)
            for part, kind in parts.items()
        }
        return self._table(
            config.fixed_backbone(modality),
            modality,
            inputs,
            [input_sha256(inputs, i, (modality,)) for i in range(len(inputs))],
            compute,
            identity=_Identity(**(known or described(load()))),
            newest=known is None,
        )

    def _table(
        self,
        name: str,
        modality: str,
        inputs: Inputs,
        shas: Sequence[str | None],
        compute: Callable[[Session, list[int]], NDArray[np.float32]],
        *,
        identity: _Identity,
        newest: bool = False,
    ) -> FeatureTable:
        wanted = {int(inputs.revision_ids[i]): (i, sha) for i, sha in enumerate(shas) if sha is not None}
        if not wanted:
            raise ModelError(f"no crystal has the input of {name}; ingest with this recipe or text level first")
        with session_scope(self._engine) as session:
            encoder = ensure_encoder(
                session,
                name=name,
                modality=modality,
                dim=identity.dim,
                weights_sha256=identity.weights_sha256,
                recipe_id=identity.recipe_id,
                text_level=identity.text_level,
                preprocessing=identity.preprocessing,
            )
            if newest and (older := take_name(session, encoder, name)) is not None:
                self._progress.message(
                    f"{name!r} is made otherwise than before; the vectors that were there are those of the encoder"
                    f" {older!r} from now on"
                )
            encoder_id, encoder_name = encoder.id, encoder.name
        memo = (encoder_id, json_sha256(sorted((rid, sha) for rid, (_, sha) in wanted.items())))
        if memo in self._tables:
            return self._tables[memo]
        vectors = self._complete(encoder_id, encoder_name, wanted, compute)
        table = FeatureTable(
            encoder_id=encoder_id,
            encoder=encoder_name,
            identity_sha256=json_sha256([identity.weights_sha256, identity.preprocessing]),
            dim=identity.dim,
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
        vectors = {rid: vector for rid, (sha, vector) in stored.items() if sha == wanted[rid][1]}
        missing = [rid for rid in wanted if rid not in vectors]
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
        Of ``train.features.featurizers.COMPOSITION_FEATURIZERS`` or ``DENSITY_FEATURIZERS``.
    models
        Folder of pre-trained backbones; None is ``ECDREG_MODELS``.
    progress
        Told of what is computed.
    grids
        Where the density grids lie, for features of densities.

    Returns
    -------
    int
        Id of the encoder.

    Raises
    ------
    UnknownNameError
        If there are no such features.
    ModelError
        If no crystal has what they are made of.
    """
    kind = "density" if name in DENSITY_FEATURIZERS else "composition"
    config = _fixed_config(kind, name, TARGETS[0])
    with Session(engine) as session:
        inputs = crystal_inputs(session, densities=kind == "density")
    cache = FeatureCache(engine, models=models, progress=progress, grids=grids)
    return cache.table(config, kind, inputs, recipe_id=None).encoder_id


def _fixed_config(kind: str, name: str, target: str) -> TrainConfig:
    """A configuration that reads the features of this name, and nothing else."""
    return TrainConfig.from_dict({"kind": kind, "target": target, f"{kind}_backbone": name})


def described(backbone: Featurizer) -> dict[str, Any]:
    """What tells a backbone from another, as JSON takes it: checksum of its weights, dimension, preprocessing."""
    return {
        "weights_sha256": backbone.weights_sha256,
        "dim": backbone.dim,
        "preprocessing": backbone.preprocessing(),
    }


def check_known(backbone: Featurizer, known: Mapping[str, Any]) -> None:
    """Make sure that a backbone is the one that :func:`described` told of.

    Raises
    ------
    ArtifactError
        If its weights or its preprocessing differ.
    """
    if described(backbone) != dict(known):
        raise ArtifactError(
            f"{backbone.modality} backbone {backbone.name!r} is not the one that the model was trained with (weights"
            f" {backbone.weights_sha256[:12]}, not {str(known['weights_sha256'])[:12]}, or another preprocessing);"
            " bring that one back, or train the model again"
        )


def input_sha256(inputs: Inputs, row: int, modalities: Sequence[str]) -> str | None:
    """Checksum of what an encoder reads of one crystal; None where a part is missing.

    Parameters
    ----------
    inputs
        Crystals.
    row
        Which of them.
    modalities
        What the encoder reads, in its order: ``image``, ``text``, ``composition``, ``density``.
    """
    parts: list[str] = []
    for modality in modalities:
        value = _part_sha256(inputs, row, modality)
        if value is None:
            return None
        parts.append(value)
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


def _part_sha256(inputs: Inputs, row: int, modality: str) -> str | None:
    if modality == "image":
        return inputs.image_sha256[row]
    if modality == "density":
        files = inputs.densities[row]
        return None if files is None else files.sha256
    text = inputs.texts[row] if modality == "text" else inputs.formulas[row]
    return None if text is None else text_sha256(text)


def recipe_channels(session: Session, recipe_id: int) -> tuple[str, ...]:
    """What each channel of a recipe's images shows: a density kind, ``fourier`` or ``imported``.

    Raises
    ------
    NotFoundError
        If the recipe has no image.
    """
    image = session.execute(
        select(SliceImage.revision_id, SliceImage.channels).where(SliceImage.recipe_id == recipe_id).limit(1)
    ).one_or_none()
    if image is None:
        raise NotFoundError(f"no images under recipe {recipe_id}; `ecdreg ingest` makes them")
    kinds = session.scalars(
        select(SliceInput.kind)
        .where(SliceInput.revision_id == image.revision_id, SliceInput.recipe_id == recipe_id)
        .order_by(SliceInput.channel)
    ).all()
    if not kinds:
        return ("imported",) * int(image.channels)
    unit = session.scalars(select(ImageRecipe.unit).where(ImageRecipe.id == recipe_id)).one()
    return tuple(kinds) if unit is not None else ("fourier",) * len(kinds)


@dataclass(frozen=True)
class _Identity:
    weights_sha256: str
    dim: int
    preprocessing: dict[str, Any]
    recipe_id: int | None = None
    text_level: str | None = None


def _short(backbone: str) -> str:
    # A folder or a hub id is named by its last part.
    return backbone.rstrip("/").rsplit("/", 1)[-1]
