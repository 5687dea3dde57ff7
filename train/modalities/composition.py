"""Compositions: formulas, and features by a fixed rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy.orm import Session

from registry.checksums import text_sha256
from registry.crystals import CrystalData
from registry.files.grids import GridStore
from registry.models import Encoder
from train.featurizers.catalog import Featurizer, load_featurizer
from train.modalities.base import Column, EncoderIdentity, Modality
from train.modalities.features import CompositionFeatures

__all__ = ["CompositionModality"]


class CompositionModality(Modality[CompositionFeatures]):
    """The reduced formula, which every crystal has."""

    name: ClassVar[str] = "composition"
    place = 2
    config = CompositionFeatures

    def find(
        self,
        session: Session,
        config: CompositionFeatures,
        revision_ids: Sequence[int],
        formulas: Sequence[str],
        *,
        trained_on: Mapping[str, Any] | None = None,
    ) -> Column:
        """The formulas."""
        return Column(tuple(text_sha256(formula) for formula in formulas), tuple(formulas))

    def load(
        self,
        session: Session,
        column: Column,
        positions: Sequence[int],
        revision_ids: Sequence[int],
        *,
        grids: GridStore | None,
    ) -> list[str]:
        """Formulas."""
        return [column.values[i] for i in positions]

    def missing(self, config: CompositionFeatures) -> str:
        """A formula."""
        return "formula"

    def spec(self, config: CompositionFeatures, column: Column) -> dict[str, Any]:
        """Name of the rule."""
        return {"modality": self.name, "name": config.backbone}

    def encoder_spec(self, encoder: Encoder, name: str) -> dict[str, Any]:
        """Name of the rule in the encoder's preprocessing."""
        return {"modality": self.name, "name": encoder.preprocessing["name"]}

    def load_featurizer(self, spec: Mapping[str, Any], *, models: Path | None) -> Featurizer:
        """The rule that has the name."""
        return load_featurizer(self.name, str(spec["name"]))

    def encoder(self, config: CompositionFeatures, column: Column) -> EncoderIdentity:
        """Named as the rule."""
        return EncoderIdentity(config.backbone)

    def read(
        self, crystal: CrystalData, config: CompositionFeatures, trained_on: Mapping[str, Any], *, model: str
    ) -> str:
        """The formula."""
        return crystal.formula

    def check(
        self,
        crystal: str,
        column: Column,
        row: int,
        config: CompositionFeatures,
        trained_on: Mapping[str, Any],
        *,
        model: str,
    ) -> None:
        """Every crystal has a formula."""

    def encoder_input(self, session: Session, encoder: Encoder, crystal: CrystalData) -> str:
        """The formula."""
        return crystal.formula
