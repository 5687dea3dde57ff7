"""Vectors of inputs that are not in the registry: a sentence, or a crystal that was only just read from files.

An encoder gives them the very vector that it would have written for the same input in the registry: its weights
and its preprocessing are compared by their checksums before they are used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.crystals import CrystalData
from registry.errors import IncompatibleInputError, ModelError
from registry.image_recipes import recipe_sha256
from registry.model_store import ResolvedModel
from registry.models import Encoder, Experiment, ImageRecipe, ModelVersion
from registry.settings import Settings
from train.backbones import Backbone, load_image_backbone, load_text_backbone
from train.inference import Predictor

__all__ = ["EncoderInputs", "encode_crystal", "encode_text", "encoder_inputs"]


@dataclass(frozen=True)
class EncoderInputs:
    """What an encoder reads of a crystal."""

    recipe: str | None
    """Name of the image recipe; None: no image."""
    text_level: str | None
    """None: no text."""


def encoder_inputs(session: Session, encoder: Encoder) -> EncoderInputs:
    """What an encoder reads of a crystal.

    Parameters
    ----------
    session
        Only read.
    encoder
        As ``registry.encoders.resolve_encoder`` gives it.
    """
    recipe = None if encoder.recipe_id is None else session.get_one(ImageRecipe, encoder.recipe_id).name
    return EncoderInputs(recipe, encoder.text_level)


def encode_text(session: Session, settings: Settings, encoder: Encoder, text: str) -> NDArray[np.float32]:
    """Vector of a sentence under an encoder that reads texts alone.

    Parameters
    ----------
    session
        Only read.
    settings
        Where weights and backbones are kept.
    encoder
        Of modality ``text``.
    text
        Any sentence; it need not be of the encoder's text level.

    Returns
    -------
    NDArray
        (dim of the encoder,)

    Raises
    ------
    IncompatibleInputError
        If the encoder reads something else.
    ModelError
        If the text is empty, or the weights here are not those of the encoder.
    """
    if encoder.modality != "text":
        raise IncompatibleInputError(
            f"encoder {encoder.name!r} is of modality {encoder.modality}, and a sentence is a text; `ecdreg encoders"
            " list` shows others"
        )
    if not text.strip():
        raise ModelError("the text is empty; write what the crystals should be like")
    if encoder.model_version_id is None:
        return _checked(encoder, _frozen(session, settings, encoder).features([text]))
    return _checked(encoder, _tower(session, settings, encoder).encode_texts([text]))


def encode_crystal(session: Session, settings: Settings, encoder: Encoder, crystal: CrystalData) -> NDArray[np.float32]:
    """Vector of a crystal that ``ingest.prepare`` made, whether or not the registry has it.

    Parameters
    ----------
    session
        Only read.
    settings
        Where weights and backbones are kept.
    encoder
        Of any modality.
    crystal
        With the slices and descriptions that :func:`encoder_inputs` names.

    Returns
    -------
    NDArray
        (dim of the encoder,)

    Raises
    ------
    IncompatibleInputError
        If the crystal lacks what the encoder reads, or offers it of another recipe.
    ModelError
        If the weights here are not those of the encoder.
    """
    if encoder.modality == "composition":
        from train.baselines import magpie_features

        return _checked(encoder, np.asarray(magpie_features([crystal.formula]), dtype=np.float32))
    if encoder.model_version_id is not None:
        return _checked(encoder, _tower(session, settings, encoder).encode([crystal]))
    if encoder.modality == "image":
        values: object = _pixels(session, encoder, crystal)[None]
    else:
        values = [_text(encoder, crystal)]
    return _checked(encoder, _frozen(session, settings, encoder).features(values))


# ---------------------------------------------------------------------------- encoders


def _tower(session: Session, settings: Settings, encoder: Encoder) -> Predictor:
    """The refit that a trained encoder is."""
    version = session.get_one(ModelVersion, encoder.model_version_id)
    model = ResolvedModel(session.get_one(Experiment, version.experiment_id), version)
    return Predictor.load(session, settings, model, folds=False)


def _frozen(session: Session, settings: Settings, encoder: Encoder) -> Backbone:
    """The backbone of a frozen encoder, verified to be the one that wrote its vectors."""
    name = _backbone_name(session, encoder)
    prepared = encoder.preprocessing
    if encoder.modality == "image":
        backbone: Backbone = load_image_backbone(
            name,
            channels=[channel["kind"] for channel in prepared["channels"]],
            image_size=prepared["resize"]["size"],
            models=settings.models,
        )
    else:
        backbone = load_text_backbone(name, max_tokens=prepared["max_tokens"], models=settings.models)
    if (backbone.weights_sha256, json_sha256(backbone.preprocessing())) != (
        encoder.weights_sha256,
        encoder.preprocessing_sha256,
    ):
        raise ModelError(
            f"backbone {name!r} here is not the one that made the vectors of {encoder.name!r}; restore it, or train"
            " again to make vectors with this one"
        )
    return backbone


def _backbone_name(session: Session, encoder: Encoder) -> str:
    # An encoder carries the last part of a path or a hub id; the experiments that used it know the whole.
    short = encoder.name.partition(":")[0]
    asked = Experiment.config[f"{encoder.modality}_backbone"].astext
    used = session.scalars(select(asked).where(asked.is_not(None)).distinct().order_by(asked)).all()
    return next((name for name in used if name.rstrip("/").rsplit("/", 1)[-1] == short), short)


# ------------------------------------------------------------------------------- inputs


def _pixels(session: Session, encoder: Encoder, crystal: CrystalData) -> NDArray[np.float32]:
    recipe = session.get_one(ImageRecipe, encoder.recipe_id)
    for image in crystal.slices:
        if recipe_sha256(image.recipe_parameters) == recipe.sha256:
            return image.pixels
    has = ", ".join(sorted({image.recipe_name for image in crystal.slices})) or "none"
    raise IncompatibleInputError(
        f"{crystal.source_id} has no slice of this version of the recipe {recipe.name!r} (slices: {has}), which encoder"
        f" {encoder.name!r} reads; give its densities, or choose an encoder that reads texts"
    )


def _text(encoder: Encoder, crystal: CrystalData) -> str:
    for description in crystal.descriptions:
        if description.level == encoder.text_level:
            return description.text
    raise IncompatibleInputError(
        f"{crystal.source_id} has no text of level {encoder.text_level!r}, which encoder {encoder.name!r} reads; give"
        " its structure"
    )


def _checked(encoder: Encoder, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = np.asarray(vectors, dtype=np.float32)[0]
    if vector.shape != (encoder.dim,) or not np.isfinite(vector).all() or not np.any(vector):
        raise ModelError(
            f"encoder {encoder.name!r} gives a vector of shape {vector.shape} that is zero, not finite or not of length"
            f" {encoder.dim} for this input, and it cannot be searched with"
        )
    return vector
