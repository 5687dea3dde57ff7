"""Prediction with a trained model, for crystals of the registry or crystals that were read from files.

A model refuses what it was not trained on: another recipe, density kind, level of theory or text level.
:mod:`train.prediction.stored` predicts for crystals of the model's split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from registry.crystals import CrystalData
from registry.errors import IncompatibleInputError
from registry.files.artifacts import ArtifactStore
from registry.files.grids import GridStore
from registry.jobs.progress import Progress, Silent
from registry.model_store import ResolvedModel
from registry.models import ModelVersion
from registry.settings import Settings
from train.config.config import TrainConfig
from train.config.stored import config_of
from train.features.batch import Batch
from train.features.cache import FeatureCache, check_known
from train.features.crystals import read_crystals
from train.features.inputs import ModelInputs
from train.modalities import MODALITIES, Column, restore_featurizer
from train.models.fitted import FittedModel, RestoreContext
from train.models.fitted_regressors import FittedJoin
from train.models.fitting import restore_model
from train.models.network_fitting import FittedNetwork
from train.prediction.calibration import read_calibration
from train.prediction.compatibility import check_stored, read_inputs
from train.prediction.uncertainty import CONFIDENCE, Calibration, Intervals

__all__ = ["PredictionResult", "Predictor", "reads_raw"]


@dataclass(frozen=True)
class PredictionResult:
    """Prediction of one crystal."""

    value: float
    """Of the refit, in the unit of the target."""
    spread: float | None
    """Standard deviation over the models of the folds, in the unit of the target; not an error bar."""
    n_models: int
    """Models of the folds that the spread is taken over."""
    lower: float | None = None
    """Lower end of the interval, in the unit of the target; None where the model has none."""
    upper: float | None = None
    """Upper end of the interval, in the unit of the target."""
    confidence: float | None = None
    """Nominal coverage of the interval."""
    novelty: float | None = None
    """Distance to what the model was fitted to, over the threshold of its domain; None for a model without features."""

    @property
    def out_of_domain(self) -> bool | None:
        """Whether the crystal lies outside the domain, where the interval may be too narrow."""
        return None if self.novelty is None else self.novelty > 1


def reads_raw(model: FittedModel, modality: str) -> bool:
    """Whether a model reads a modality as it is, by a fine-tuned backbone of its own, and not its frozen features.

    In a join this differs between towers: beside a fine-tuned tower, a regressor reads features.

    Parameters
    ----------
    model
        The model.
    modality
        One that it reads.
    """
    return (model.towers[modality] if isinstance(model, FittedJoin) else model).reads_raw


class Predictor:
    """A refit and the models of its folds, loaded and verified.

    Made by :meth:`load`.
    """

    def __init__(
        self,
        model: ResolvedModel,
        config: TrainConfig,
        refit: FittedModel,
        folds: Mapping[int, FittedModel],
        *,
        settings: Settings,
    ) -> None:
        self.model = model
        self.config = config
        network = refit if isinstance(refit, FittedNetwork) else None
        self.trained_on: Mapping[str, Any] = refit.extra
        """Description of the training data."""
        self._network = network
        self._refit = refit
        self._folds = dict(folds)
        self._settings = settings
        self.calibration: Calibration | None = None
        """Calibration of the intervals, once :meth:`calibrate` has read it."""
        self.calibrated_rows = np.empty(0, dtype=np.int64)
        """(N,), the revisions of its rows."""

    @property
    def n_folds(self) -> int:
        """Models of the folds that are loaded; of fewer than two there is no spread."""
        return len(self._folds)

    @classmethod
    def load(cls, session: Session, settings: Settings, model: ResolvedModel, *, folds: bool = True) -> Predictor:
        """Load a model and the models of its folds.

        Parameters
        ----------
        session
            Only read.
        settings
            Where weights are kept.
        model
            As ``registry.model_store.resolve_model`` gives it.
        folds
            Whether to load the models of the folds, which give the spread.

        Raises
        ------
        ArtifactError
            If weights are missing or do not match their checksum.
        """
        config = config_of(model.experiment)
        store = ArtifactStore(settings.artifacts)
        versions = session.execute(
            select(ModelVersion.fold, ModelVersion.artifact_uri, ModelVersion.artifact_sha256)
            .where(
                ModelVersion.experiment_id == model.experiment.id,
                ModelVersion.fold.is_not(None),
                ModelVersion.phase == model.model_version.phase,
                ModelVersion.status == "ready",
            )
            .order_by(ModelVersion.fold)
        ).all()
        own = model.model_version
        refit, *others = [
            restore_model(config, store.read(uri or "", sha or ""), RestoreContext(models=settings.models))
            for _, uri, sha in [(None, own.artifact_uri, own.artifact_sha256), *(versions if folds else [])]
        ]
        numbers = [int(fold or 0) for fold, _, _ in versions] if folds else []
        return cls(model, config, refit, dict(zip(numbers, others, strict=True)), settings=settings)

    def calibrate(self, engine: Engine, *, progress: Progress | None = None) -> Calibration | None:
        """Read the calibration of this model's intervals; its later predictions have intervals.

        Parameters
        ----------
        engine
            Features that are missing are computed, and kept.
        progress
            Receives progress of features that are computed.

        Returns
        -------
        Calibration or None
            None for a model that was not cross-validated here, or whose models of the folds are not loaded.
        """
        if self.calibration is None and self.n_folds > 1:
            with Session(engine) as session:
                read = read_calibration(
                    session,
                    self.model.experiment,
                    self.model.model_version.phase,
                    lambda ids: self.inputs(engine, ids.tolist(), progress).frozen(ids),
                )
            if read is not None:
                self.calibrated_rows, self.calibration = read
        return self.calibration

    def intervals_of(
        self,
        engine: Engine,
        revision_ids: NDArray[np.int64],
        confidences: Sequence[float],
        *,
        value: NDArray[np.float64],
        progress: Progress | None = None,
    ) -> dict[float, Intervals]:
        """Intervals of N crystals that no fit has seen, by confidence; the model must be calibrated.

        Parameters
        ----------
        engine
            Features that are missing are computed, and kept.
        revision_ids
            (N,)
        confidences
            Nominal coverages of the intervals.
        value
            (N,), predictions of the refit in the unit of the target.
        progress
            Receives progress of features that are computed.
        """
        assert self.calibration is not None
        inputs = self.inputs(engine, revision_ids.tolist(), progress)
        batch, features = inputs.batch(revision_ids), inputs.frozen(revision_ids)
        by_fold = {fold: model.predict(batch) for fold, model in self._folds.items()}
        make = self.calibration.intervals
        return {
            confidence: make(by_fold, features=features, value=value, confidence=confidence)
            for confidence in confidences
        }

    def predict(self, inputs: Sequence[CrystalData], *, confidence: float = CONFIDENCE) -> list[PredictionResult]:
        """Predict for crystals that ``ingest.preparation`` made, whether or not the registry has them.

        Parameters
        ----------
        inputs
            N crystals with the slices and descriptions that the model reads.
        confidence
            Nominal coverage of the intervals, which only a calibrated model gives; see :meth:`calibrate`.

        Raises
        ------
        IncompatibleInputError
            If a crystal lacks what the model reads, or offers it of another recipe, density kind, level of theory
            or text level; the message names the remedy.
        """
        return self._predict(self._batch(inputs), confidence=confidence)

    def encode(self, inputs: Sequence[CrystalData]) -> NDArray[np.float32]:
        """Vectors of such crystals under the refit, (N, width), equal to the embeddings that it would write.

        Raises
        ------
        IncompatibleInputError
            As :meth:`predict`; or if the model is a baseline, which has no vectors.
        """
        return self._encoder().encode(self._batch(inputs, modalities=self.config.embedded))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of N texts under the refit, (N, width); in a shared space they are compared with those of images.

        Raises
        ------
        IncompatibleInputError
            If the model reads anything else than texts, and has no space that it shares with them.
        """
        if self.config.modalities != ("text",) and not self.config.shares_space:
            raise IncompatibleInputError(f"{self.model.name} does not read texts alone; choose a text model")
        return self._encoder().encode(self._batch_of({"text": list(texts)}, len(texts)))

    def encode_images(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors of N slices under the refit, (N, width).

        Parameters
        ----------
        pixels
            (N, C, H, W), as the model's recipe makes them.

        Raises
        ------
        IncompatibleInputError
            If the model reads anything else than images.
        """
        if self.config.embedded != ("image",):
            raise IncompatibleInputError(f"{self.model.name} does not read images alone; choose an image model")
        return self._encoder().encode(self._batch_of({"image": pixels}, len(pixels)))

    def predict_registered(
        self,
        engine: Engine,
        revision_ids: Sequence[int],
        *,
        confidence: float = CONFIDENCE,
        progress: Progress | None = None,
    ) -> list[PredictionResult]:
        """Predict for crystals of the registry, from kept features where there are any, with intervals.

        Parameters
        ----------
        engine
            Features that are missing are computed, and kept.
        revision_ids
            N revisions.
        confidence
            Nominal coverage of the intervals.
        progress
            Receives progress of features that are computed.

        Raises
        ------
        IncompatibleInputError
            As :meth:`predict`.
        """
        with Session(engine) as session:
            crystals = read_crystals(session, self.config.inputs, revision_ids, trained_on=self.trained_on)
        check_stored(crystals, self.config, self.trained_on, model=self.model.name)
        ids = np.array(revision_ids, dtype=np.int64)
        self.calibrate(engine, progress=progress)
        inputs = self.inputs(engine, ids.tolist(), progress, raw_alone=self.calibration is None)
        return self._predict(inputs.batch(ids), confidence=confidence)

    def fitted(self, fold: int | None = None) -> FittedModel:
        """The refit, or the model of a fold."""
        return self._refit if fold is None else self._folds[fold]

    def inputs(
        self,
        engine: Engine,
        revision_ids: list[int],
        progress: Progress | None = None,
        *,
        raw_alone: bool = False,
    ) -> ModelInputs:
        """Inputs of the model for crystals of the registry.

        Parameters
        ----------
        engine
            Features that are missing are computed, and kept.
        revision_ids
            N revisions.
        progress
            Receives progress of features that are computed.
        raw_alone
            No frozen features, where the model holds backbones of its own.
        """
        grids = GridStore(self._settings.grids_url)
        cache = FeatureCache(engine, models=self._settings.models, progress=progress or Silent(), grids=grids)
        trainable = [name for name in self.config.modalities if MODALITIES[name].trains_backbone]
        return ModelInputs(
            engine,
            self.config,
            revision_ids,
            cache=cache,
            trained_on=self.trained_on,
            raw_alone=raw_alone and all(reads_raw(self._refit, name) for name in trainable),
            grids=grids,
        )

    def _predict(self, batch: Batch, *, confidence: float) -> list[PredictionResult]:
        values = self._refit.predict(batch)
        by_fold = {fold: model.predict(batch) for fold, model in self._folds.items()}
        spreads = np.std(list(by_fold.values()), axis=0, ddof=1) if len(by_fold) > 1 else None
        intervals = None
        if self.calibration is not None and len(batch):
            intervals = self.calibration.intervals(
                by_fold, features=batch.features, value=values, confidence=confidence
            )
        return [
            PredictionResult(
                float(value),
                None if spreads is None else float(spreads[i]),
                len(by_fold),
                lower=None if intervals is None else float(intervals.lower[i]),
                upper=None if intervals is None else float(intervals.upper[i]),
                confidence=None if intervals is None else confidence,
                novelty=None if intervals is None or intervals.novelty is None else float(intervals.novelty[i]),
            )
            for i, value in enumerate(values)
        ]

    def _encoder(self) -> FittedNetwork:
        if self._network is None:
            raise IncompatibleInputError(
                f"{self.model.name} is not a network and has no vectors; choose a tower or a stack with dense readouts"
            )
        return self._network

    def _batch(self, crystals: Sequence[CrystalData], *, modalities: Sequence[str] | None = None) -> Batch:
        read = read_inputs(crystals, self.config, self.trained_on, model=self.model.name, modalities=modalities)
        return self._batch_of(read, len(crystals))

    def _batch_of(self, read: Mapping[str, Any], n: int) -> Batch:
        """Batch of N crystals from the inputs of each modality."""
        features, raw = {}, {}
        for name, values in read.items():
            if self._refit.reads_raw and MODALITIES[name].trains_backbone:
                raw[name] = values
                if self.calibration is None and reads_raw(self._refit, name):
                    continue
            if (record := self._refit.records.get(name)) is not None:
                featurizer = restore_featurizer(record.spec, models=self._settings.models)
                check_known(featurizer, self.trained_on["backbones"][name])
            else:  # a baseline stores no featurizer: it has the one of its kind
                features_config = self.config.inputs[name]
                spec = MODALITIES[name].spec(features_config, Column((), ()))
                featurizer = restore_featurizer(spec, models=self._settings.models)
            features[name] = featurizer.features(values)
        return Batch(n, features, raw)
