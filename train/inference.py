"""Predicting with a trained model: crystals of the registry, or crystals that were only just read from files.

A model refuses what it was not trained on: another recipe, density kind, level of theory or text level.
Of crystals in its split it repeats what it said when it had not seen them: a cross-validated crystal is
answered by the fold that left it out, a holdout crystal by the one prediction that was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from registry.artifacts import ArtifactStore
from registry.crystals import CrystalData
from registry.database import session_scope
from registry.errors import IncompatibleInputError
from registry.grids import GridStore
from registry.model_store import ResolvedModel, write_predictions
from registry.models import (
    Crystal,
    CrystalRevision,
    Experiment,
    ModelVersion,
    Prediction,
    SplitMember,
)
from registry.progress import Progress, Silent
from registry.settings import Settings
from train.compatibility import Reader
from train.config import FIXED_MODALITIES, SHARED_SPACE, TrainConfig
from train.data import crystal_inputs, known_values
from train.features import FeatureCache
from train.fitting import FittedModel, FittedNetwork, Shown, restore
from train.inputs import ModelInputs
from train.intervals import read_calibration, split_intervals
from train.results import config_of
from train.uncertainty import LEVEL, Calibration, Intervals

__all__ = ["CrystalPrediction", "PredictionResult", "Predictor", "predict_crystals"]


@dataclass(frozen=True)
class PredictionResult:
    """What a model says of one crystal."""

    value: float
    """Of the refit, in the unit of the target."""
    spread: float | None
    """Standard deviation over the models of the folds, in the unit of the target; no error bar."""
    n_models: int
    """Models of the folds that the spread is taken over."""
    lower: float | None = None
    """Lower end of the interval, in the unit of the target; None where the model has none."""
    upper: float | None = None
    """Upper end of the interval, in the unit of the target."""
    level: float | None = None
    """What the interval promises."""
    novelty: float | None = None
    """Distance to what the model was fitted to, over the threshold of its domain; None for a model without features."""

    @property
    def out_of_domain(self) -> bool | None:
        """Whether the crystal lies outside the domain, where the interval may be too narrow."""
        return None if self.novelty is None else self.novelty > 1


@dataclass(frozen=True)
class CrystalPrediction:
    """What a model says of one crystal of the registry."""

    revision_id: int
    value: float
    """In the unit of the target."""
    spread: float | None
    """As in :class:`PredictionResult`; None for a cross-validated crystal, which one fold alone has not seen."""
    known: float | None
    """The value at the preferred level of theory, in the unit of the target."""
    subset: str
    """validation and holdout: made when the model had not seen the crystal; train: the model was fitted to this
    material; none: the crystal is outside the model's split."""
    lower: float | None = None
    """As in :class:`PredictionResult`; around the out-of-fold prediction for a cross-validated crystal."""
    upper: float | None = None
    level: float | None = None
    out_of_domain: bool | None = None


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
        self.described: Mapping[str, Any] = refit.extra
        """What the model was trained on."""
        self._reader = Reader(model.name, config, self.described)
        self._network = network
        self._refit = refit
        self._folds = dict(folds)
        self._settings = settings
        self.calibration: Calibration | None = None
        """What the intervals are made of, once :meth:`calibrate` has read it."""
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
            Whether the models of the folds are wanted, which the spread is taken over.

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
            restore(config, store.read(uri or "", sha or ""), models=settings.models)
            for _, uri, sha in [(None, own.artifact_uri, own.artifact_sha256), *(versions if folds else [])]
        ]
        numbers = [int(fold or 0) for fold, _, _ in versions] if folds else []
        return cls(model, config, refit, dict(zip(numbers, others, strict=True)), settings=settings)

    def calibrate(self, engine: Engine, *, progress: Progress | None = None) -> Calibration | None:
        """Read what the intervals of this model are made of; from here on its predictions have them.

        Parameters
        ----------
        engine
            Features that are missing are computed, and kept.
        progress
            Told of features that are computed.

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
                    lambda ids: self._inputs(engine, ids.tolist(), progress).frozen(ids),
                )
            if read is not None:
                self.calibrated_rows, self.calibration = read
        return self.calibration

    def intervals_of(
        self,
        engine: Engine,
        revision_ids: NDArray[np.int64],
        levels: Sequence[float],
        *,
        value: NDArray[np.float64],
        progress: Progress | None = None,
    ) -> dict[float, Intervals]:
        """Intervals of N crystals that no fit has seen, by level; the model must be calibrated.

        Parameters
        ----------
        engine
            Features that are missing are computed, and kept.
        revision_ids
            (N,)
        levels
            What the intervals promise.
        value
            (N,), what the refit says of them.
        progress
            Told of features that are computed.
        """
        assert self.calibration is not None
        inputs = self._inputs(engine, revision_ids.tolist(), progress)
        shown, features = inputs.shown(revision_ids), inputs.frozen(revision_ids)
        said = {fold: model.predict(shown) for fold, model in self._folds.items()}
        make = self.calibration.intervals
        return {level: make(said, features=features, value=value, level=level) for level in levels}

    def predict(self, inputs: Sequence[CrystalData], *, level: float = LEVEL) -> list[PredictionResult]:
        """Predict for crystals that ``ingest.prepare`` made, whether or not the registry has them.

        Parameters
        ----------
        inputs
            N crystals with the slices and descriptions that the model reads.
        level
            What the intervals promise that a calibrated model gives: see :meth:`calibrate`.

        Raises
        ------
        IncompatibleInputError
            If a crystal lacks what the model reads, or offers it of another recipe, density kind, level of theory
            or text level; the message says what to do.
        """
        return self._predict(self._shown(inputs), level=level)

    def encode(self, inputs: Sequence[CrystalData]) -> NDArray[np.float32]:
        """Vectors of such crystals under the refit, (N, width): what it would write as embeddings.

        Raises
        ------
        IncompatibleInputError
            As :meth:`predict`; or if the model is a baseline, which has no vectors.
        """
        return self._encoder().encode(self._shown(inputs, modalities=self.config.embedded))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of N texts under the refit, (N, width); in a shared space they are compared with those of images.

        Raises
        ------
        IncompatibleInputError
            If the model reads anything else than texts, and has no space that it shares with them.
        """
        if self.config.towers != ("text",) and self.config.kind not in SHARED_SPACE:
            raise IncompatibleInputError(f"{self.model.name} does not read texts alone; choose a text model")
        return self._encoder().encode(self._show({"text": list(texts)}, [""] * len(texts)))

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
        return self._encoder().encode(self._show({"image": pixels}, [""] * len(pixels)))

    def predict_registered(
        self,
        engine: Engine,
        revision_ids: Sequence[int],
        *,
        level: float = LEVEL,
        progress: Progress | None = None,
    ) -> list[PredictionResult]:
        """Predict for crystals of the registry, from kept features where there are any, with intervals.

        Parameters
        ----------
        engine
            Features that are missing are computed, and kept.
        revision_ids
            N revisions.
        level
            What the intervals promise.
        progress
            Told of features that are computed.

        Raises
        ------
        IncompatibleInputError
            As :meth:`predict`.
        """
        with Session(engine) as session:
            crystals = crystal_inputs(
                session,
                revision_ids,
                recipe_id=self._reader.recipe_id(session),
                text_level=self.config.text_level if "text" in self.config.towers else None,
                densities="density" in self.config.towers,
            )
        for row in range(len(crystals)):
            self._reader.check(crystals, row)
        ids = np.array(revision_ids, dtype=np.int64)
        self.calibrate(engine, progress=progress)
        inputs = self._inputs(engine, ids.tolist(), progress, raw_alone=self.calibration is None)
        return self._predict(inputs.shown(ids), level=level)

    def _inputs(
        self, engine: Engine, revision_ids: list[int], progress: Progress | None, *, raw_alone: bool = False
    ) -> ModelInputs:
        with Session(engine) as session:
            recipe_id = self._reader.recipe_id(session)
        return ModelInputs(
            engine,
            self.config,
            revision_ids,
            recipe_id=recipe_id,
            cache=FeatureCache(
                engine,
                models=self._settings.models,
                progress=progress or Silent(),
                grids=GridStore(self._settings.grids_url),
            ),
            known=self.described.get("backbones"),
            raw_alone=raw_alone and self._refit.reads_raw,
        )

    def _predict(self, shown: Shown, *, level: float) -> list[PredictionResult]:
        values = self._refit.predict(shown)
        said = {fold: model.predict(shown) for fold, model in self._folds.items()}
        spreads = np.std(list(said.values()), axis=0, ddof=1) if len(said) > 1 else None
        intervals = None
        if self.calibration is not None and len(shown):
            intervals = self.calibration.intervals(said, features=shown.features, value=values, level=level)
        return [
            PredictionResult(
                float(value),
                None if spreads is None else float(spreads[i]),
                len(said),
                lower=None if intervals is None else float(intervals.lower[i]),
                upper=None if intervals is None else float(intervals.upper[i]),
                level=None if intervals is None else level,
                novelty=None if intervals is None or intervals.novelty is None else float(intervals.novelty[i]),
            )
            for i, value in enumerate(values)
        ]

    def _encoder(self) -> FittedNetwork:
        if self._network is None:
            raise IncompatibleInputError(
                f"{self.model.name} is no network and has no vectors; choose a tower or a stack with dense readouts"
            )
        return self._network

    def _shown(self, inputs: Sequence[CrystalData], *, modalities: Sequence[str] | None = None) -> Shown:
        return self._show(self._reader.raw(inputs, modalities=modalities), [crystal.formula for crystal in inputs])

    def _show(self, raw: dict[str, Any], formulas: list[str]) -> Shown:
        if self.config.kind == "baseline-magpie":
            from train.baselines import magpie_features

            return Shown(len(formulas), {"composition": np.asarray(magpie_features(formulas), dtype=np.float32)})
        from train.backbones import load_backbone
        from train.features import check_known

        features, kept = {}, {}
        for tower, values in raw.items():
            if self._refit.reads_raw and tower not in FIXED_MODALITIES:
                kept[tower] = values
                if self.calibration is None:
                    continue
            backbone = load_backbone(self._refit.records[tower].spec, models=self._settings.models)
            check_known(backbone, self.described["backbones"][tower])
            features[tower] = backbone.features(values)
        return Shown(len(formulas), features, kept)


def predict_crystals(
    engine: Engine,
    settings: Settings,
    model: ResolvedModel,
    revision_ids: Sequence[int],
    *,
    level: float = LEVEL,
    progress: Progress | None = None,
) -> list[CrystalPrediction]:
    """What a model says of crystals of the registry; new predictions are kept, made ones are repeated.

    Parameters
    ----------
    engine
        Predictions for crystals outside the split are written to it.
    settings
        Where weights are kept.
    model
        As ``registry.model_store.resolve_model`` gives it.
    revision_ids
        N revisions; the answer is in their order.
    level
        What the intervals promise. Those of :data:`train.uncertainty.LEVEL` are kept; others are made anew.
    progress
        Told of features that are computed.

    Raises
    ------
    IncompatibleInputError
        If a crystal lacks what the model reads.
    ArtifactError
        If weights are missing or do not match their checksum.
    """
    with Session(engine) as session:
        known = known_values(session, model.experiment.target, revision_ids)
        made = _made(session, model, revision_ids, known)
        new = [rid for rid in dict.fromkeys(int(r) for r in revision_ids) if rid not in made]
        anew = [rid for rid, said in made.items() if said.lower is None or level != LEVEL]
        predictor = Predictor.load(session, settings, model) if new or anew else None
        fitted = _fitted_to(session, model.experiment, new)
    if predictor is not None and new:
        results = predictor.predict_registered(engine, new, level=level, progress=progress)
        kept = results if level == LEVEL else predictor.predict_registered(engine, new, progress=progress)
        for rid, result in zip(new, results, strict=True):
            subset = "train" if rid in fitted else "none"
            made[rid] = CrystalPrediction(
                rid,
                result.value,
                result.spread,
                known.get(rid),
                subset,
                lower=result.lower,
                upper=result.upper,
                level=result.level,
                out_of_domain=result.out_of_domain,
            )
        with session_scope(engine) as session:
            for subset in ("train", "none"):
                chosen = [(rid, result) for rid, result in zip(new, kept, strict=True) if made[rid].subset == subset]
                _write(session, model, chosen, subset=subset)
    if predictor is not None and anew and predictor.calibrate(engine, progress=progress) is not None:
        made |= _other_intervals(predictor, engine, [made[rid] for rid in anew], level, progress)
    return [made[int(rid)] for rid in revision_ids]


def _other_intervals(
    predictor: Predictor,
    engine: Engine,
    predictions: Sequence[CrystalPrediction],
    level: float,
    progress: Progress | None,
) -> dict[int, CrystalPrediction]:
    """The same predictions with intervals of another level than the kept one, or that were not kept."""
    found: dict[int, tuple[float | None, float | None, bool | None]] = {}
    for part in split_intervals(predictor, engine, (level,), progress=progress):
        intervals, flags = part.by_level[level], part.by_level[level].out_of_domain
        for i, rid in enumerate(part.revision_ids.tolist()):
            flag = None if flags is None else bool(flags[i])
            found[rid] = (float(intervals.lower[i]), float(intervals.upper[i]), flag)
    others = [p.revision_id for p in predictions if p.revision_id not in found]  # the model was fitted to their twins
    for rid, result in zip(others, predictor.predict_registered(engine, others, level=level), strict=True):
        found[rid] = (result.lower, result.upper, result.out_of_domain)
    return {
        p.revision_id: replace(p, lower=lower, upper=upper, level=level, out_of_domain=flag)
        for p in predictions
        for lower, upper, flag in [found[p.revision_id]]
    }


def _write(
    session: Session, model: ResolvedModel, chosen: Sequence[tuple[int, PredictionResult]], *, subset: str
) -> None:
    results = [result for _, result in chosen]

    def column(name: str) -> list[Any] | None:
        values = [getattr(result, name) for result in results]
        return None if any(value is None for value in values) else values

    write_predictions(
        session,
        model.model_version.id,
        [rid for rid, _ in chosen],
        [result.value for result in results],
        subset=subset,
        spread=column("spread"),
        lower=column("lower"),
        upper=column("upper"),
        out_of_domain=column("out_of_domain"),
    )


def _made(
    session: Session, model: ResolvedModel, revision_ids: Sequence[int], known: Mapping[int, float]
) -> dict[int, CrystalPrediction]:
    """Predictions that were made inside the split; those outside are made anew."""
    found = session.scalars(
        select(Prediction)
        .join(ModelVersion, ModelVersion.id == Prediction.model_version_id)
        .where(
            ModelVersion.experiment_id == model.experiment.id,
            ModelVersion.phase == model.model_version.phase,
            Prediction.subset != "none",
            Prediction.revision_id.in_([int(rid) for rid in revision_ids]),
        )
    )
    return {
        p.revision_id: CrystalPrediction(
            p.revision_id,
            p.value,
            p.spread,
            known.get(p.revision_id),
            p.subset,
            lower=p.lower,
            upper=p.upper,
            level=None if p.lower is None else LEVEL,
            out_of_domain=p.out_of_domain,
        )
        for p in found
    }


def _fitted_to(session: Session, experiment: Experiment, revision_ids: Sequence[int]) -> set[int]:
    """Those whose material the model was fitted to, under another revision or another source."""
    fitted = (
        select(Crystal.material_key)
        .join(SplitMember, SplitMember.crystal_id == Crystal.id)
        .where(SplitMember.split_id == experiment.split_id, SplitMember.subset == "cv")
    )
    return set(
        session.scalars(
            select(CrystalRevision.id)
            .join(Crystal, Crystal.id == CrystalRevision.crystal_id)
            .where(CrystalRevision.id.in_(revision_ids), Crystal.material_key.in_(fitted))
        )
    )
