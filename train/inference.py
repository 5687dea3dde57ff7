"""Predicting with a trained model: crystals of the registry, or crystals that were only just read from files.

A model refuses what it was not trained on: another recipe, density kind, level of theory or text level.
Of crystals in its split it repeats what it said when it had not seen them: a cross-validated crystal is
answered by the fold that left it out, a holdout crystal by the one prediction that was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from registry.artifacts import ArtifactStore
from registry.crystals import CrystalData
from registry.database import session_scope
from registry.errors import IncompatibleInputError, NotFoundError
from registry.image_recipes import recipe_sha256
from registry.model_store import ResolvedModel, write_predictions
from registry.models import (
    Crystal,
    CrystalRevision,
    Experiment,
    ImageRecipe,
    ModelVersion,
    Prediction,
    SplitMember,
)
from registry.progress import Progress, Silent
from registry.settings import Settings
from train.config import TrainConfig
from train.data import ChannelInputs, Inputs, crystal_inputs, known_values
from train.features import FeatureCache
from train.fitting import FittedModel, FittedNetwork, Shown, restore
from train.inputs import ModelInputs
from train.results import config_of

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


class Predictor:
    """A refit and the models of its folds, loaded and verified.

    Made by :meth:`load`.
    """

    def __init__(
        self,
        model: ResolvedModel,
        config: TrainConfig,
        refit: FittedModel,
        folds: Sequence[FittedModel],
        *,
        settings: Settings,
    ) -> None:
        self.model = model
        self.config = config
        network = refit if isinstance(refit, FittedNetwork) else None
        self.described: Mapping[str, Any] = {} if network is None else network.extra
        """What the model was trained on."""
        self._network = network
        self._refit = refit
        self._folds = folds
        self._settings = settings

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
            select(ModelVersion.artifact_uri, ModelVersion.artifact_sha256)
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
            for uri, sha in [(own.artifact_uri, own.artifact_sha256), *(versions if folds else [])]
        ]
        return cls(model, config, refit, others, settings=settings)

    def predict(self, inputs: Sequence[CrystalData]) -> list[PredictionResult]:
        """Predict for crystals that ``ingest.prepare`` made, whether or not the registry has them.

        Parameters
        ----------
        inputs
            N crystals with the slices and descriptions that the model reads.
        Raises
        ------
        IncompatibleInputError
            If a crystal lacks what the model reads, or offers it of another recipe, density kind, level of theory
            or text level; the message says what to do.
        """
        return self._predict(self._shown(inputs))

    def encode(self, inputs: Sequence[CrystalData]) -> NDArray[np.float32]:
        """Vectors of such crystals under the refit, (N, width): what it would write as embeddings.

        Raises
        ------
        IncompatibleInputError
            As :meth:`predict`; or if the model is a baseline, which has no vectors.
        """
        return self._encoder().encode(self._shown(inputs))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of N texts under the refit, (N, width).

        Raises
        ------
        IncompatibleInputError
            If the model reads anything else than texts.
        """
        if self.config.towers != ("text",):
            raise IncompatibleInputError(f"{self.model.name} does not read texts alone; choose a text model")
        return self._encoder().encode(self._show({"text": list(texts)}, [""] * len(texts)))

    def predict_registered(
        self, engine: Engine, revision_ids: Sequence[int], *, progress: Progress | None = None
    ) -> list[PredictionResult]:
        """Predict for crystals of the registry, from kept features where there are any.

        Parameters
        ----------
        engine
            Features that are missing are computed, and kept.
        revision_ids
            N revisions.
        progress
            Told of features that are computed.

        Raises
        ------
        IncompatibleInputError
            As :meth:`predict`.
        """
        with Session(engine) as session:
            recipe_id = self._recipe_id(session)
            crystals = crystal_inputs(
                session,
                revision_ids,
                recipe_id=recipe_id,
                text_level=self.config.text_level if "text" in self.config.towers else None,
            )
        for row in range(len(crystals)):
            self._check(crystals, row)
        cache = FeatureCache(engine, models=self._settings.models, progress=progress or Silent())
        shown = ModelInputs(
            engine,
            self.config,
            [int(i) for i in revision_ids],
            recipe_id=recipe_id,
            cache=cache,
            known=self.described.get("backbones"),
            raw_alone=self._network is not None and self._network.reads_raw,
        ).shown(np.array(revision_ids, dtype=np.int64))
        return self._predict(shown)

    def _predict(self, shown: Shown) -> list[PredictionResult]:
        values = self._refit.predict(shown)
        said = [model.predict(shown) for model in self._folds]
        spreads = np.std(said, axis=0, ddof=1) if len(said) > 1 else None
        return [
            PredictionResult(float(value), None if spreads is None else float(spreads[i]), len(said))
            for i, value in enumerate(values)
        ]

    def _encoder(self) -> FittedNetwork:
        if self._network is None:
            raise IncompatibleInputError(f"{self.model.name} is a baseline and has no vectors; choose a network")
        return self._network

    def _shown(self, inputs: Sequence[CrystalData]) -> Shown:
        raw: dict[str, NDArray[np.float32] | list[str]] = {}
        for tower in self.config.towers:
            if tower == "image":
                raw[tower] = np.stack([self._pixels(crystal) for crystal in inputs])
            else:
                raw[tower] = [self._text(crystal) for crystal in inputs]
        return self._show(raw, [crystal.formula for crystal in inputs])

    def _show(self, raw: dict[str, NDArray[np.float32] | list[str]], formulas: list[str]) -> Shown:
        if self.config.kind == "baseline-magpie":
            from train.baselines import magpie_features

            return Shown(len(formulas), {"composition": np.asarray(magpie_features(formulas), dtype=np.float32)})
        if self._network is None or self._network.reads_raw:
            return Shown(len(formulas), raw=raw)
        from train.backbones import load_backbone
        from train.features import check_known

        features = {}
        for tower, values in raw.items():
            backbone = load_backbone(self._network.records[tower].spec, models=self._settings.models)
            check_known(backbone, self.described["backbones"][tower])
            features[tower] = backbone.features(values)
        return Shown(len(formulas), features)

    # ------------------------------------------------------------- what the model was trained on

    def _pixels(self, crystal: CrystalData) -> NDArray[np.float32]:
        for image in crystal.slices:
            if recipe_sha256(image.recipe_parameters) == self.described["recipe_sha256"]:
                self._check_channels(crystal.source_id, tuple(image.inputs))
                return image.pixels
        others = sorted({image.recipe_name for image in crystal.slices})
        if self.config.recipe in others:
            raise IncompatibleInputError(
                f"{crystal.source_id} has a slice of another version of the recipe {self.config.recipe!r} than"
                f" {self.model.name} was trained on; train the model again"
            )
        raise self._no_image(crystal.source_id, others)

    def _text(self, crystal: CrystalData) -> str:
        for description in crystal.descriptions:
            if description.level == self.config.text_level:
                return description.text
        raise self._no_text(crystal.source_id)

    def _check(self, crystals: Inputs, row: int) -> None:
        name = crystals.source_ids[row]
        if "image" in self.config.towers:
            if crystals.image_sha256[row] is None:
                raise self._no_image(name, [])
            self._check_channels(name, crystals.image_inputs[row])
        if "text" in self.config.towers and crystals.texts[row] is None:
            raise self._no_text(name)

    def _check_channels(self, name: str, channels: ChannelInputs) -> None:
        trained = [tuple((kind, level) for kind, level in one) for one in self.described["image_inputs"]]
        if channels not in trained:
            raise IncompatibleInputError(
                f"{name} has slices of {_words(channels)}; {self.model.name} was trained on"
                f" {' or '.join(_words(one) for one in trained)}: give those, and the level of theory where a file"
                " does not say it"
            )

    def _no_image(self, name: str, others: list[str]) -> IncompatibleInputError:
        has = f" (it has {', '.join(others)})" if others else ""
        trained = self.described["image_inputs"]
        kinds = sorted({kind for one in trained for kind, _ in one})
        needs = f"its {' and '.join(kinds)} density" if kinds else "its slices"
        return IncompatibleInputError(
            f"{name} has no slice of the recipe {self.config.recipe!r}{has}, which {self.model.name} reads;"
            f" give {needs}, or use a model that reads texts alone"
        )

    def _no_text(self, name: str) -> IncompatibleInputError:
        return IncompatibleInputError(
            f"{name} has no text of level {self.config.text_level!r}, which {self.model.name} reads;"
            " give its structure, or ingest it with texts"
        )

    def _recipe_id(self, session: Session) -> int | None:
        if "image" not in self.config.towers:
            return None
        sha256 = self.described["recipe_sha256"]
        found = session.scalar(select(ImageRecipe.id).where(ImageRecipe.sha256 == sha256))
        if found is None:
            raise NotFoundError(f"recipe {self.config.recipe!r} of {self.model.name} is not in the registry")
        return found


def predict_crystals(
    engine: Engine,
    settings: Settings,
    model: ResolvedModel,
    revision_ids: Sequence[int],
    *,
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
        predictor = Predictor.load(session, settings, model) if new else None
        fitted = _fitted_to(session, model.experiment, new)
    if predictor is not None:
        results = predictor.predict_registered(engine, new, progress=progress)
        for rid, result in zip(new, results, strict=True):
            subset = "train" if rid in fitted else "none"
            made[rid] = CrystalPrediction(rid, result.value, result.spread, known.get(rid), subset)
        with session_scope(engine) as session:
            for subset in ("train", "none"):
                chosen = [made[rid] for rid in new if made[rid].subset == subset]
                write_predictions(
                    session,
                    model.model_version.id,
                    [p.revision_id for p in chosen],
                    [p.value for p in chosen],
                    subset=subset,
                    spread=[p.spread for p in chosen if p.spread is not None] if predictor.n_folds > 1 else None,
                )
    return [made[int(rid)] for rid in revision_ids]


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
        p.revision_id: CrystalPrediction(p.revision_id, p.value, p.spread, known.get(p.revision_id), p.subset)
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


def _words(channels: Sequence[Sequence[str]]) -> str:
    return " and ".join(f"{kind} density at {level}" for kind, level in channels) or "imported images"
