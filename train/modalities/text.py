"""Texts: descriptions of a text level, and features of a pre-trained language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.checksums import text_sha256
from registry.crystals import CrystalData
from registry.errors import IncompatibleInputError
from registry.files.grids import GridStore
from registry.models import Description, Encoder
from train.modalities.base import Column, EncoderIdentity, Modality
from train.modalities.features import ClipTextFeatures, TextFeatures

if TYPE_CHECKING:
    from train.featurizers.catalog import Featurizer

__all__ = ["TextModality"]


@dataclass(frozen=True)
class TextColumn(Column):
    """Texts of N crystals."""

    @property
    def identity(self) -> tuple[str | None, ...]:
        """The texts themselves, as release 0.1.0 had them in the checksums of its experiments."""
        return self.values


class TextModality(Modality[TextFeatures]):
    """The description of a crystal at one text level."""

    name: ClassVar[str] = "text"
    place = 1
    config = TextFeatures
    trains_backbone: ClassVar[bool] = True

    def find(
        self,
        session: Session,
        config: TextFeatures,
        revision_ids: Sequence[int],
        formulas: Sequence[str],
        *,
        trained_on: Mapping[str, Any] | None = None,
    ) -> Column:
        """The descriptions of the text level."""
        found = dict(
            session.execute(
                select(Description.revision_id, Description.text).where(
                    Description.revision_id.in_([int(i) for i in revision_ids]),
                    Description.text_level == config.text_level,
                )
            ).all()
        )
        texts = tuple(found.get(int(i)) for i in revision_ids)
        return TextColumn(tuple(None if text is None else text_sha256(text) for text in texts), texts)

    def load(
        self,
        session: Session,
        column: Column,
        positions: Sequence[int],
        revision_ids: Sequence[int],
        *,
        grids: GridStore | None,
    ) -> list[str]:
        """Texts."""
        return [column.values[i] or "" for i in positions]

    def missing(self, config: TextFeatures) -> str:
        """A text of the level."""
        return f"text of level {config.text_level!r}"

    def spec(self, config: TextFeatures, column: Column) -> dict[str, Any]:
        """Language model, or the text half of a CLIP, and number of tokens."""
        family = {"family": "clip"} if isinstance(config, ClipTextFeatures) else {}
        return {**family, "modality": self.name, "name": config.backbone, "max_tokens": config.max_tokens}

    def encoder_spec(self, encoder: Encoder, name: str) -> dict[str, Any]:
        """Language model of the encoder, and its number of tokens."""
        prepared = encoder.preprocessing
        family = {"family": "clip"} if prepared.get("family") == "clip" else {}
        return {**family, "modality": self.name, "name": name, "max_tokens": prepared["max_tokens"]}

    def load_featurizer(self, spec: Mapping[str, Any], *, models: Path | None) -> Featurizer:
        """The language model, or the text half of a CLIP."""
        from train.backbones.clip import load_clip_text
        from train.backbones.text import load_text_backbone

        load = load_clip_text if spec.get("family") == "clip" else load_text_backbone
        return load(spec["name"], max_tokens=spec["max_tokens"], models=models)

    def encoder(self, config: TextFeatures, column: Column) -> EncoderIdentity:
        """Named as language model and text level."""
        return EncoderIdentity(f"{_last_part(config.backbone)}:{config.text_level}", text_level=config.text_level)

    def describe(self, config: TextFeatures, column: Column) -> dict[str, Any]:
        """The text level."""
        return {"text_level": config.text_level}

    def read(self, crystal: CrystalData, config: TextFeatures, trained_on: Mapping[str, Any], *, model: str) -> str:
        """The description of the text level."""
        for description in crystal.descriptions:
            if description.text_level == config.text_level:
                return description.text
        raise _no_text(crystal.source_id, config, model)

    def check(
        self, crystal: str, column: Column, row: int, config: TextFeatures, trained_on: Mapping[str, Any], *, model: str
    ) -> None:
        """Refuse a crystal without a text of the level."""
        if column.values[row] is None:
            raise _no_text(crystal, config, model)

    def encoder_input(self, session: Session, encoder: Encoder, crystal: CrystalData) -> str:
        """The description of the encoder's text level."""
        for description in crystal.descriptions:
            if description.text_level == encoder.text_level:
                return description.text
        raise IncompatibleInputError(
            f"{crystal.source_id} has no text of level {encoder.text_level!r}, which encoder {encoder.name!r} reads;"
            " give its structure"
        )


def _no_text(crystal: str, config: TextFeatures, model: str) -> IncompatibleInputError:
    return IncompatibleInputError(
        f"{crystal} has no text of level {config.text_level!r}, which {model} reads; give its structure, or ingest it"
        " with texts"
    )


def _last_part(name: str) -> str:
    """A folder or a hub id is named by its last part."""
    return name.rstrip("/").rsplit("/", 1)[-1]
