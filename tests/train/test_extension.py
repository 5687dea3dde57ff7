"""A modality, a model kind and a target are each added by one entry, from outside the packages.

What is defined here is what another package would define; it is found through the catalogs alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import text
from sqlalchemy.orm import Session
from train.config.features import FeatureConfig

from registry.checksums import json_sha256
from registry.crystals import CrystalData
from registry.database import session_scope
from registry.errors import IncompatibleInputError
from registry.files.grids import GridStore
from registry.model_store import resolve_model
from registry.models import CrystalRevision, Encoder
from registry.properties import PropertyDefinition
from registry.property_store import add_property
from registry.splits.creation import SplitRule, create_split
from tests.train.conftest import SmallRegistry, flat_config, small_crystal
from train.config.config import TrainConfig
from train.config.kinds import MODEL_KINDS, ModelKind, parse_config
from train.features.batch import Batch
from train.featurizers.catalog import Featurizer, FixedFeaturizer
from train.modalities import MODALITIES, Column, EncoderIdentity, Modality
from train.models.fitted import FitContext, FittedModel, RestoreContext
from train.models.records import BackboneRecord
from train.prediction.predictor import Predictor
from train.prediction.stored import predict_crystals

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
        volumes = [session.get_one(CrystalRevision, int(i)).volume for i in revision_ids]
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


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entries, for one test: a package has ``MODALITIES.add(...)``, or an entry point."""
    monkeypatch.setitem(MODALITIES._entries, "cell", CellModality())
    monkeypatch.setitem(MODEL_KINDS._entries, "median", ModelKind(MedianConfig, fit_median, restore_median))


TOWER = {"type": "tower", "target": "k_vrh", "modality": "cell"}


@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("head", [{"type": "regressor", "name": "gaussian-process"}, {"type": "network"}])
def test_an_added_modality_is_trained_and_predicts(small: SmallRegistry, head: dict[str, Any]) -> None:
    training = {"training": small.config("text").training.to_dict()} if head["type"] == "network" else {}
    config = parse_config({**TOWER, "head": head, **training})
    result = small.run(config)
    assert (result.name, result.cv["r2"] > 0.4) == ("cell", True)
    with Session(small.engine) as session:
        (model,) = resolve_model(session, "cell:k_vrh")
        session.expunge_all()
        predictor = Predictor.load(session, small.settings, model)
        assert session.scalar(text("SELECT count(*) FROM encoders WHERE name = 'powers' AND modality = 'cell'")) == 1
    ids = [small.revisions["mp-3"], small.revisions["mp-4"]]
    stored = predictor.predict_registered(small.engine, ids)
    files = predictor.predict([small_crystal(2), small_crystal(3)])
    np.testing.assert_allclose([p.value for p in files], [p.value for p in stored], rtol=1e-6)


@pytest.mark.usefixtures("added")
def test_an_added_modality_is_a_tower_of_a_stack(small: SmallRegistry) -> None:
    towers = [{"modality": "cell"}, {"modality": "composition"}]
    join = {"type": "regressor", "name": "gaussian-process", "reads": "features"}
    parts = [{**tower, "head": {"type": "regressor", "name": "ridge"}} for tower in towers]
    result = small.run(parse_config({"type": "stack", "target": "k_vrh", "towers": parts, "join": join}))
    assert [one.name for one in result.prerequisites] == ["composition", "cell"]  # after those of this project
    assert result.cv["r2"] > 0.4


@pytest.mark.usefixtures("added")
def test_an_added_model_kind_is_trained_and_predicts(small: SmallRegistry) -> None:
    config = parse_config({"type": "median", "target": "k_vrh", "factor": 2.0})
    result = small.run(config)
    assert (result.outcome, result.name) == ("trained", "median")
    with Session(small.engine) as session:
        (model,) = resolve_model(session, "median:k_vrh")
        known = session.scalar(
            text(
                "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY v.value) FROM property_values v"
                " JOIN split_members m ON m.revision_id = v.revision_id JOIN splits s ON s.id = m.split_id"
                " WHERE v.property = 'k_vrh' AND s.target = 'k_vrh' AND m.subset = 'cv'"
            )
        )
        session.expunge_all()
    predicted = predict_crystals(small.engine, small.settings, model, [small.revisions["mp-1"]])
    assert predicted[0].value == pytest.approx(2 * float(known or 0)) or predicted[0].subset == "validation"


def test_an_added_target_is_trained_on_by_name(small: SmallRegistry) -> None:
    hardness = PropertyDefinition(
        "hardness_vickers", "GPa", "Vickers hardness", "Vickers hardness", 0.0, 150.0, "diamond has about 100 GPa"
    )
    add_property(small.engine, hardness)
    with session_scope(small.engine) as session:
        session.execute(
            text(
                "INSERT INTO property_values (revision_id, property, level_of_theory, value)"
                " SELECT revision_id, 'hardness_vickers', level_of_theory, value / 5 FROM property_values"
                " WHERE property = 'k_vrh'"
            )
        )
        create_split(session, "hard", target="hardness_vickers", rule=SplitRule(n_folds=3))
    result = small.run(flat_config("baseline-magpie", "hardness_vickers"), split="hard")
    assert result.cv["r2"] > 0.3
    with Session(small.engine) as session:
        columns = session.execute(text("SELECT hardness_vickers, k_vrh FROM v_materials")).all()
        assert all(row.hardness_vickers == pytest.approx(row.k_vrh / 5) for row in columns)
        unit = session.scalar(text("SELECT unit FROM v_leaderboard WHERE target = 'hardness_vickers'"))
    assert unit == "GPa"
