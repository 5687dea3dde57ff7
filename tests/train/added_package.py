"""A modality and a model kind, as a package of somebody else would define them; ``test_extension`` installs it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.crystals import CrystalData
from registry.errors import IncompatibleInputError
from registry.files.grids import GridStore
from registry.models import CrystalRevision, Encoder
from train.config.config import TrainConfig
from train.config.kinds import ModelKind
from train.config.parameters import Parameter
from train.features.batch import Batch
from train.featurizers.catalog import Featurizer, FixedFeaturizer
from train.modalities import Column, EncoderIdentity, Modality
from train.modalities.features import FeatureConfig
from train.models.fitted import FitContext, FittedModel, RestoreContext
from train.models.records import BackboneRecord

__all__ = ["CELL", "MEDIAN"]

# ------------------------------------------------------- a modality: the volume of the cell


class CellFeatures(FeatureConfig):
    """Cell volumes, and the rule that makes features of them."""

    backbone: str = "powers"


class CellModality(Modality[CellFeatures]):
    """The volume of the stored cell [Å^3]."""

    name: ClassVar[str] = "cell"
    config = CellFeatures
    widths: ClassVar[tuple[int, ...]] = (8,)

    def find(
        self,
        session: Session,
        config: CellFeatures,
        revision_ids: Sequence[int],
        formulas: Sequence[str],
        *,
        trained_on: Mapping[str, Any] | None = None,
    ) -> Column:
        rows = session.execute(
            select(CrystalRevision.id, CrystalRevision.volume).where(CrystalRevision.id.in_(list(revision_ids)))
        )
        found = {row.id: row.volume for row in rows}
        volumes = [found[int(i)] for i in revision_ids]
        return Column(tuple(None if v is None else json_sha256(v) for v in volumes), tuple(volumes))

    def load(
        self,
        session: Session,
        column: Column,
        positions: Sequence[int],
        revision_ids: Sequence[int],
        *,
        grids: GridStore | None,
    ) -> list[float]:
        return [column.values[i] for i in positions]

    def missing(self, config: CellFeatures) -> str:
        return "volume"

    def spec(self, config: CellFeatures, column: Column) -> dict[str, Any]:
        return {"modality": self.name, "name": config.backbone}

    def encoder_spec(self, encoder: Encoder, name: str) -> dict[str, Any]:
        return {"modality": self.name, "name": name}

    def load_featurizer(self, spec: Mapping[str, Any], *, models: Path | None) -> Featurizer:
        def powers(volumes: Any) -> NDArray[np.float64]:
            v = np.cbrt(np.array(list(volumes)))
            return np.stack([v, v**2, 1 / v], axis=1)

        return FixedFeaturizer("powers", self.name, dim=3, compute=powers, about={"version": 1})

    def encoder(self, config: CellFeatures, column: Column) -> EncoderIdentity:
        return EncoderIdentity(config.backbone)

    def read(self, crystal: CrystalData, config: CellFeatures, trained_on: Mapping[str, Any], *, model: str) -> float:
        if crystal.volume is None:
            raise IncompatibleInputError(f"{crystal.source_id} has no volume, which {model} reads; give its structure")
        return crystal.volume

    def check(
        self, crystal: str, column: Column, row: int, config: CellFeatures, trained_on: Mapping[str, Any], *, model: str
    ) -> None:
        if column.values[row] is None:
            raise IncompatibleInputError(f"{crystal} has no volume, which {model} reads; ingest it with its structure")


# ------------------------------------------ a model kind: the median of the training rows


class MedianConfig(TrainConfig):
    """The median of the training rows, times a factor."""

    type: Literal["median"] = "median"
    factor: float = 1.0

    @property
    def kind(self) -> str:
        return "median"

    @property
    def inputs(self) -> Mapping[str, FeatureConfig]:
        return {}


@dataclass(frozen=True)
class FittedMedian:
    """A fitted median."""

    value: float
    phase: str = "fit"
    result: None = None
    reads_raw: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    records: Mapping[str, BackboneRecord] = field(default_factory=dict)

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        return np.full(len(batch), self.value)

    def scalers(self) -> dict[str, Any]:
        return {}

    def to_bytes(self, *, extra: dict[str, Any]) -> bytes:
        return json.dumps({"value": self.value}).encode()


def fit_median(context: FitContext) -> Iterator[FittedModel]:
    assert isinstance(context.config, MedianConfig)
    yield FittedMedian(context.config.factor * float(np.median(context.values)))


def restore_median(config: TrainConfig, data: bytes, context: RestoreContext) -> FittedModel:
    return FittedMedian(json.loads(data)["value"])


def median_space(config: TrainConfig) -> tuple[Parameter, ...]:
    return (Parameter("factor", choices=(0.5, 1.0)),)


CELL = CellModality()
MEDIAN = ModelKind(MedianConfig, fit_median, restore_median, median_space)
