"""Vectors of inputs that are not in the registry: a sentence, an image, or a crystal that was read from files.

An encoder gives them the same vector that it would have written for the same input in the registry: its weights
and its preprocessing are compared by their checksums before they are used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import cast, func, select
from sqlalchemy.dialects.postgresql import JSONPATH
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.crystals import CrystalData
from registry.errors import IncompatibleInputError, ModelError
from registry.model_store import ResolvedModel
from registry.models import Encoder, Experiment, ImageRecipe, ModelVersion, SliceImage
from registry.settings import Settings
from train.config.stored import config_of
from train.featurizers.catalog import Featurizer
from train.modalities import MODALITIES, restore_featurizer
from train.modalities.features import CLIP_TOKENS
from train.prediction.predictor import Predictor

__all__ = [
    "EncoderInputs",
    "encode_crystal",
    "encode_image",
    "encode_text",
    "encoder_inputs",
    "reads_sentences",
    "takes_image",
]


@dataclass(frozen=True)
class EncoderInputs:
    """Names of the inputs that an encoder reads of a crystal."""

    recipe: str | None
    """Name of the image recipe; None: no image."""
    text_level: str | None
    """None: no text."""


def encoder_inputs(session: Session, encoder: Encoder) -> EncoderInputs:
    """Inputs of an encoder for a crystal, from its stored record.

    Parameters
    ----------
    session
        Only read.
    encoder
        As ``registry.encoders.resolve_encoder`` gives it.
    """
    recipe = None if encoder.recipe_id is None else session.get_one(ImageRecipe, encoder.recipe_id).name
    return EncoderInputs(recipe, encoder.text_level)


def reads_sentences(session: Session, encoder: Encoder) -> bool:
    """Whether :func:`encode_text` accepts sentences for this encoder.

    True for encoders of texts, and for encoders of images that share a space with texts: those of a CLIP, frozen or
    trained, and of a dual encoder.

    Parameters
    ----------
    session
        Only read.
    encoder
        As ``registry.encoders.resolve_encoder`` gives it.
    """
    if encoder.model_version_id is None:
        return encoder.modality == "text" or encoder.preprocessing.get("family") == "clip"
    version = session.get_one(ModelVersion, encoder.model_version_id)
    return encoder.modality == "text" or config_of(session.get_one(Experiment, version.experiment_id)).shares_space


def encode_text(session: Session, settings: Settings, encoder: Encoder, text: str) -> NDArray[np.float32]:
    """Vector of a sentence under an encoder of texts, or in the space that one of images shares with them.

    Parameters
    ----------
    session
        Only read.
    settings
        Where weights and backbones are kept.
    encoder
        Encoder for which :func:`reads_sentences` is true.
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
    if not reads_sentences(session, encoder):
        raise IncompatibleInputError(
            f"encoder {encoder.name!r} is of modality {encoder.modality}, and a sentence is a text; `ecdreg encoders"
            " list` shows others"
        )
    if not text.strip():
        raise ModelError("the text is empty; write what the crystals should be like")
    if encoder.model_version_id is not None:
        return _checked(encoder, _tower(session, settings, encoder).encode_texts([text]))
    frozen = _frozen(session, settings, encoder)
    if encoder.modality == "image":
        # The other half of the same CLIP.
        half = {"family": "clip", "modality": "text", "name": frozen.name, "max_tokens": CLIP_TOKENS}
        frozen = restore_featurizer(half, models=settings.models)
    return _checked(encoder, frozen.features([text]))


def encode_crystal(session: Session, settings: Settings, encoder: Encoder, crystal: CrystalData) -> NDArray[np.float32]:
    """Vector of a crystal that ``ingest.preparation`` made, whether or not the registry has it.

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
    if encoder.model_version_id is not None:
        return _checked(encoder, _tower(session, settings, encoder).encode([crystal]))
    modality = MODALITIES[encoder.modality]
    value = modality.encoder_input(session, encoder, crystal)
    return _checked(encoder, _frozen(session, settings, encoder).features(modality.batch([value])))


def encode_image(
    session: Session, settings: Settings, encoder: Encoder, pixels: NDArray[np.float32], *, has_unit: bool
) -> NDArray[np.float32]:
    """Vector of a slice that is there as a picture, under an encoder that reads images alone.

    Parameters
    ----------
    session
        Only read.
    settings
        Where weights and backbones are kept.
    encoder
        Of modality ``image``.
    pixels
        (C, H, W), finite; a slice like those of the encoder's recipe, in its unit, of any resolution.
    has_unit
        Whether the pixels are physical values; those of a PNG are grey from 0 to 1.

    Returns
    -------
    NDArray
        (dim of the encoder,)

    Raises
    ------
    IncompatibleInputError
        If the encoder reads something else, or pictures of another kind or shape.
    ModelError
        If the weights here are not those of the encoder.
    """
    if (trouble := _image_trouble(session, encoder, pixels, has_unit=has_unit)) is not None:
        raise IncompatibleInputError(trouble)
    if encoder.model_version_id is None:
        return _checked(encoder, _frozen(session, settings, encoder).features(pixels[None]))
    return _checked(encoder, _tower(session, settings, encoder).encode_images(pixels[None]))


def takes_image(session: Session, encoder: Encoder, pixels: NDArray[np.float32], *, has_unit: bool) -> bool:
    """Whether :func:`encode_image` accepts pictures for this encoder.

    Parameters
    ----------
    session
        Only read.
    encoder, pixels, has_unit
        As for :func:`encode_image`.
    """
    return _image_trouble(session, encoder, pixels, has_unit=has_unit) is None


# ---------------------------------------------------------------------------- encoders


def _image_trouble(session: Session, encoder: Encoder, pixels: NDArray[np.float32], *, has_unit: bool) -> str | None:
    if encoder.modality != "image" or encoder.recipe_id is None:
        return (
            f"encoder {encoder.name!r} is of modality {encoder.modality}, and reads no picture alone; `ecdreg encoders"
            " list` shows others"
        )
    recipe = session.get_one(ImageRecipe, encoder.recipe_id)
    shape = session.execute(
        select(SliceImage.channels, SliceImage.height, SliceImage.width)
        .where(SliceImage.recipe_id == recipe.id)
        .limit(1)
    ).one_or_none()
    if recipe.unit is not None and not has_unit:
        return (
            f"encoder {encoder.name!r} reads slices in {recipe.unit}, and the grey of a PNG has no unit; give the"
            " values as .npy"
        )
    if shape is not None and (
        pixels.shape[0] != shape.channels or pixels.shape[1] * shape.width != pixels.shape[2] * shape.height
    ):
        return (
            f"a picture of shape {pixels.shape} is none of the recipe {recipe.name!r}, which encoder {encoder.name!r}"
            f" reads: its slices have {shape.channels} channels of {shape.height} x {shape.width} pixels; give"
            " (C, H, W) of these proportions"
        )
    return None


def _tower(session: Session, settings: Settings, encoder: Encoder) -> Predictor:
    """The refit that a trained encoder is."""
    version = session.get_one(ModelVersion, encoder.model_version_id)
    model = ResolvedModel(session.get_one(Experiment, version.experiment_id), version)
    return Predictor.load(session, settings, model, folds=False)


def _frozen(session: Session, settings: Settings, encoder: Encoder) -> Featurizer:
    """The featurizer of a frozen encoder, verified to be the one that made its vectors."""
    name = _featurizer_name(session, encoder)
    spec = MODALITIES[encoder.modality].encoder_spec(encoder, name)
    featurizer = restore_featurizer(spec, models=settings.models)
    if (featurizer.weights_sha256, json_sha256(featurizer.preprocessing())) != (
        encoder.weights_sha256,
        encoder.preprocessing_sha256,
    ):
        raise ModelError(
            f"{name!r} on this machine is not the one that made the vectors of {encoder.name!r}; restore it, or train"
            " again to make vectors with this one"
        )
    return featurizer


def _featurizer_name(session: Session, encoder: Encoder) -> str:
    """Full name of the featurizer of an encoder.

    An encoder has the last part of a path or a hub id; the experiments that used it have the whole.
    """
    short, modality = encoder.name.partition(":")[0], encoder.modality
    if encoder.preprocessing.get("family") == "clip":
        paths = ['$.encoder ? (@.type == "clip").name', "$.clip"]
    else:
        paths = [
            f'$.** ? (@.modality == "{modality}").features.backbone',
            f"$.encoder.{modality}_backbone",
            f"$.{modality}_backbone",
        ]
    names = {
        str(name)
        for path in paths
        for name in session.scalars(select(func.jsonb_path_query(Experiment.config, cast(path, JSONPATH))).distinct())
    }
    return next((name for name in sorted(names) if name.rstrip("/").rsplit("/", 1)[-1] == short), short)


def _checked(encoder: Encoder, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    vector: NDArray[np.float32] = np.asarray(vectors, dtype=np.float32)[0]
    if vector.shape != (encoder.dim,) or not np.isfinite(vector).all() or not np.any(vector):
        raise ModelError(
            f"encoder {encoder.name!r} gives a vector of shape {vector.shape} that is zero, not finite or not of length"
            f" {encoder.dim} for this input, and it cannot be searched with"
        )
    return vector
