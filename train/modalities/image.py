"""Images: slices of an image recipe, and features of a pre-trained network or of fixed pixel statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT
from sqlalchemy.orm import Session

from registry.crystals import CrystalData
from registry.errors import IncompatibleInputError, NotFoundError
from registry.files.grids import GridStore
from registry.image_recipes import find_recipe, recipe_sha256
from registry.models import Encoder, ImageRecipe, SliceImage, SliceInput
from train.modalities.base import Column, EncoderIdentity, Modality
from train.modalities.features import ClipImageFeatures, ImageFeatures

if TYPE_CHECKING:
    from train.featurizers.catalog import Featurizer

__all__ = ["ChannelInputs", "ImageColumn", "ImageModality", "load_images", "recipe_channels"]

ChannelInputs: TypeAlias = tuple[tuple[str, str], ...]
"""Per channel of an image, the density kind and the level of theory that it was cut from; empty for imported images."""

_IMAGES = text(
    """
SELECT s.revision_id, s.sha256, i.inputs
FROM slice_images s
LEFT JOIN LATERAL (
    SELECT jsonb_agg(jsonb_build_array(kind, level_of_theory) ORDER BY channel) AS inputs
    FROM slice_inputs WHERE revision_id = s.revision_id AND recipe_id = :recipe_id
) i ON true
WHERE s.recipe_id = :recipe_id AND s.revision_id = ANY(:ids)
"""
).bindparams(bindparam("ids", type_=ARRAY(BIGINT)))


@dataclass(frozen=True)
class ImageColumn(Column):
    """Images of N crystals under one recipe; ``values`` are their :data:`ChannelInputs`."""

    recipe_id: int
    recipe_sha256: str
    recipe: str
    """Name of the recipe."""
    channels: tuple[str, ...]
    """Density kind of each channel, ``fourier`` or ``imported``; empty where the recipe has no image."""


class ImageModality(Modality[ImageFeatures]):
    """The slice images of a crystal under one recipe."""

    name: ClassVar[str] = "image"
    place = 0
    config = ImageFeatures
    widths: ClassVar[tuple[int, ...]] = (1024, 512, 256)
    dropout: ClassVar[float] = 0.2
    trains_backbone: ClassVar[bool] = True

    def find(
        self,
        session: Session,
        config: ImageFeatures,
        revision_ids: Sequence[int],
        formulas: Sequence[str],
        *,
        trained_on: Mapping[str, Any] | None = None,
    ) -> ImageColumn:
        """Checksums and channel inputs of the images under the recipe.

        Without ``trained_on``, the newest version of the recipe that has images.

        Raises
        ------
        NotFoundError
            If the registry does not have the recipe.
        """
        recipe = _recipe(session, config, trained_on)
        found = {
            row[0]: (row[1], tuple((kind, level) for kind, level in row[2] or ()))
            for row in session.execute(_IMAGES, {"recipe_id": recipe.id, "ids": [int(i) for i in revision_ids]})
        }
        rows = [found.get(int(i), (None, ())) for i in revision_ids]
        return ImageColumn(
            sha256=tuple(sha256 for sha256, _ in rows),
            values=tuple(inputs for _, inputs in rows),
            recipe_id=recipe.id,
            recipe_sha256=recipe.sha256,
            recipe=recipe.name,
            channels=recipe_channels(session, recipe.id) if found else (),
        )

    def load(
        self,
        session: Session,
        column: Column,
        positions: Sequence[int],
        revision_ids: Sequence[int],
        *,
        grids: GridStore | None,
    ) -> NDArray[np.float32]:
        """Pixels (N, C, H, W), in the unit of the recipe."""
        return load_images(session, revision_ids, recipe_id=_images(column).recipe_id)

    def missing(self, config: ImageFeatures) -> str:
        """An image of the recipe."""
        return f"image under recipe {config.recipe!r}"

    def spec(self, config: ImageFeatures, column: Column) -> dict[str, Any]:
        """Network, or the image half of a CLIP, and the channels of the images."""
        channels = list(_images(column).channels)
        if isinstance(config, ClipImageFeatures):
            return {"family": "clip", "modality": self.name, "name": config.backbone, "channels": channels}
        return {"modality": self.name, "name": config.backbone, "channels": channels, "image_size": config.size}

    def encoder_spec(self, encoder: Encoder, name: str) -> dict[str, Any]:
        """Network of the encoder, and the channels of its images."""
        prepared = encoder.preprocessing
        channels = [channel["kind"] for channel in prepared["channels"]]
        if prepared.get("family") == "clip":
            return {"family": "clip", "modality": self.name, "name": name, "channels": channels}
        return {"modality": self.name, "name": name, "channels": channels, "image_size": prepared["resize"]["size"]}

    def load_featurizer(self, spec: Mapping[str, Any], *, models: Path | None) -> Featurizer:
        """The network, or the image half of a CLIP."""
        from train.backbones.clip import load_clip_image
        from train.backbones.image_loaders import load_image_backbone

        if spec.get("family") == "clip":
            return load_clip_image(spec["name"], channels=spec["channels"], models=models)
        return load_image_backbone(
            spec["name"], channels=spec["channels"], image_size=spec["image_size"], models=models
        )

    def encoder(self, config: ImageFeatures, column: Column) -> EncoderIdentity:
        """Named as network and recipe."""
        found = _images(column)
        short = config.backbone.rstrip("/").rsplit("/", 1)[-1]  # a folder or a hub id is named by its last part
        return EncoderIdentity(f"{short}:{found.recipe}", recipe_id=found.recipe_id)

    def describe(self, config: ImageFeatures, column: Column) -> dict[str, Any]:
        """Recipe with its checksum, and the distinct channel inputs."""
        found = _images(column)
        return {
            "recipe": config.recipe,
            "recipe_sha256": found.recipe_sha256,
            "image_inputs": [[list(channel) for channel in one] for one in sorted(set(found.values))],
        }

    def read(
        self, crystal: CrystalData, config: ImageFeatures, trained_on: Mapping[str, Any], *, model: str
    ) -> NDArray[np.float32]:
        """Pixels (C, H, W) of the slice that the model's recipe makes."""
        for image in crystal.slices:
            if recipe_sha256(image.recipe_parameters) == trained_on["recipe_sha256"]:
                _check_channels(crystal.source_id, tuple(image.inputs), trained_on, model)
                return image.pixels
        others = sorted({image.recipe_name for image in crystal.slices})
        if config.recipe in others:
            raise IncompatibleInputError(
                f"{crystal.source_id} has a slice of another version of the recipe {config.recipe!r} than {model} was"
                " trained on; train the model again"
            )
        raise _no_image(crystal.source_id, others, config, trained_on, model)

    def check(
        self,
        crystal: str,
        column: Column,
        row: int,
        config: ImageFeatures,
        trained_on: Mapping[str, Any],
        *,
        model: str,
    ) -> None:
        """Refuse a crystal without an image, or with one of other densities than the model was trained on."""
        if column.sha256[row] is None:
            raise _no_image(crystal, [], config, trained_on, model)
        _check_channels(crystal, column.values[row], trained_on, model)

    def encoder_input(self, session: Session, encoder: Encoder, crystal: CrystalData) -> NDArray[np.float32]:
        """Pixels (C, H, W) of the slice that the encoder's recipe makes."""
        recipe = session.get_one(ImageRecipe, encoder.recipe_id)
        for image in crystal.slices:
            if recipe_sha256(image.recipe_parameters) == recipe.sha256:
                return image.pixels
        has = ", ".join(sorted({image.recipe_name for image in crystal.slices})) or "none"
        raise IncompatibleInputError(
            f"{crystal.source_id} has no slice of this version of the recipe {recipe.name!r} (slices: {has}), which"
            f" encoder {encoder.name!r} reads; give its densities, or choose an encoder that reads texts"
        )

    def batch(self, values: Sequence[Any]) -> NDArray[np.float32]:
        """Pixels (N, C, H, W)."""
        return np.stack(list(values))


def load_images(session: Session, revision_ids: Sequence[int], *, recipe_id: int) -> NDArray[np.float32]:
    """Pixels of slices, in the order of ``revision_ids``.

    Returns
    -------
    NDArray
        (N, C, H, W) float32, in the unit of the recipe.

    Raises
    ------
    NotFoundError
        If a revision has no image under the recipe.
    IncompatibleInputError
        If the images differ in shape, as imported ones may.
    """
    images: dict[int, NDArray[np.float32]] = {}
    connection = session.connection().connection.driver_connection
    # Binary results: as text, every pixel would cross as hexadecimal digits.
    with connection.cursor(binary=True) as cursor:  # type: ignore[union-attr]
        cursor.execute(
            "SELECT revision_id, channels, height, width, pixels FROM slice_images"
            " WHERE recipe_id = %s AND revision_id = ANY(%s)",
            (recipe_id, [int(i) for i in revision_ids]),
        )
        for revision_id, channels, height, width, pixels in cursor:
            images[revision_id] = np.frombuffer(pixels, dtype="<f4").reshape(channels, height, width)
    missing = [int(i) for i in revision_ids if int(i) not in images]
    if missing:
        raise NotFoundError(
            f"{len(missing)} crystals have no image under recipe {recipe_id} (first: revision {missing[0]});"
            " ingest them with this recipe"
        )
    if not len(revision_ids):
        return np.empty((0, 0, 0, 0), dtype=np.float32)
    shapes = {image.shape: revision_id for revision_id, image in images.items()}
    if len(shapes) > 1:
        (one, first), (other, second) = list(shapes.items())[:2]
        raise IncompatibleInputError(
            f"images under recipe {recipe_id} differ in shape: {one} of revision {first}, {other} of revision {second};"
            " bring imported images to one shape and ingest them again"
        )
    return np.stack([images[int(i)] for i in revision_ids])


def recipe_channels(session: Session, recipe_id: int) -> tuple[str, ...]:
    """Density kind of each channel of a recipe's images, ``fourier`` or ``imported``.

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


# ------------------------------------------------------------------------------ private


def _recipe(session: Session, config: ImageFeatures, trained_on: Mapping[str, Any] | None) -> ImageRecipe:
    if trained_on is None or "recipe_sha256" not in trained_on:
        return find_recipe(session, config.recipe)
    sha256 = trained_on["recipe_sha256"]
    found = session.scalar(select(ImageRecipe).where(ImageRecipe.sha256 == sha256))
    if found is None:
        raise NotFoundError(
            f"the registry does not have the version {sha256[:12]} of the recipe {config.recipe!r} that the model was"
            " trained on; ingest with that recipe"
        )
    return found


def _images(column: Column) -> ImageColumn:
    if not isinstance(column, ImageColumn):
        raise TypeError("an image featurizer needs the column of images that it reads")
    return column


def _check_channels(name: str, channels: ChannelInputs, trained_on: Mapping[str, Any], model: str) -> None:
    trained = [tuple((kind, level) for kind, level in one) for one in trained_on["image_inputs"]]
    if channels not in trained:
        raise IncompatibleInputError(
            f"{name} has slices of {_words(channels)}; {model} was trained on"
            f" {' or '.join(_words(one) for one in trained)}: give those, and the level of theory where a file does"
            " not state it"
        )


def _no_image(
    name: str, others: list[str], config: ImageFeatures, trained_on: Mapping[str, Any], model: str
) -> IncompatibleInputError:
    has = f" (it has {', '.join(others)})" if others else ""
    kinds = sorted({kind for one in trained_on["image_inputs"] for kind, _ in one})
    needs = f"its {' and '.join(kinds)} density" if kinds else "its slices"
    return IncompatibleInputError(
        f"{name} has no slice of the recipe {config.recipe!r}{has}, which {model} reads; give {needs}, or use a model"
        " that reads texts alone"
    )


def _words(channels: Sequence[Sequence[str]]) -> str:
    return " and ".join(f"{kind} density at {level}" for kind, level in channels) or "imported images"
