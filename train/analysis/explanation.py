"""Explanation of a prediction: attribution to modalities, pixels, words and features.

All attributions sum to a difference of predictions (:mod:`train.analysis.attribution`):

* modalities: exact Shapley values. An absent modality is taken from other crystals of the split, and the prediction is
  averaged over them. The values sum to the prediction minus the mean prediction of those crystals.
* pixels: integrated gradients through readout and backbone, from the mean slice of the split to that of the crystal, on
  a straight line in the input values of the backbone (after its fixed channel scales); all other inputs are those of
  the crystal. If an image tower ends in a regressor without gradients, Shapley values of square patches.
* words, and groups of features of compositions and densities: Shapley values, over random orders if there are many.
  Absent words are removed from the text; absent features are replaced by their mean over the split.

A cross-validated crystal is explained with the model of the fold that left it out, any other with the refit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session
from torch import Tensor, nn

from registry.errors import IncompatibleInputError
from registry.jobs.progress import Progress, Silent
from registry.model_store import ResolvedModel
from registry.models import Crystal, CrystalRevision, ImageRecipe, ModelVersion, Prediction
from registry.settings import Settings
from train.analysis.attribution import Shapley, integrated_gradients, shapley
from train.backbones.image import CHANNEL_SCALES, ImageBackbone
from train.features.batch import Batch
from train.features.labels import known_values, suspect_values
from train.featurizers.catalog import Featurizer
from train.modalities.image import ImageColumn
from train.models.fitted import FittedModel
from train.models.fitted_regressors import FittedJoin, tower_predictions
from train.models.network_fitting import FittedNetwork
from train.models.optimization import to_inputs
from train.prediction.predictor import Predictor, reads_raw

__all__ = ["Explanation", "Parts", "Pixels", "explain"]

BACKGROUND = 64
"""Number of crystals of the split that replace an absent modality, and that the mean slice is computed from."""

PATCHES = 6
"""Number of patches along each side, for models without gradients."""

MAX_WORDS = 24
"""Largest number of words that are attributed singly; longer texts are divided into sentences."""

GRADIENTS = "integrated gradients"
"""Method for pixels of differentiable models."""

GAP = 0.001
"""Accepted error of the sum of integrated gradients, in standard deviations of the known values; an error of 1 % of the
difference of the predictions is also accepted."""


@dataclass(frozen=True)
class Parts:
    """Named parts and their contributions to a prediction."""

    names: tuple[str, ...]
    values: NDArray[np.float64]
    """(n,), in the unit of the target"""
    error: NDArray[np.float64]
    """(n,), standard error over the random orders; 0 if the values are exact"""
    empty: float
    """Prediction without any part, in the unit of the target."""
    full: float
    """Prediction with all parts."""


@dataclass(frozen=True)
class Pixels:
    """Contributions of the pixels of a slice."""

    image: NDArray[np.float32]
    """(C, H, W), in the unit of the recipe"""
    values: NDArray[np.float64]
    """(C, H, W), in the unit of the target; the value of a patch is divided evenly among its pixels and channels"""
    channels: tuple[str, ...]
    """Kind of each channel."""
    method: str
    """``integrated gradients`` or ``Shapley values of patches``"""
    empty: float
    """Prediction for the mean slice of the split, in the unit of the target."""
    full: float
    steps: int
    gap: float
    """Error of the sum: sum of the values minus ``full - empty``."""
    window: tuple[float, float] | None = None
    """Width and height of the slice [Å]; None if its recipe has no metric."""

    @property
    def by_channel(self) -> dict[str, float] | None:
        """Contribution of each channel, in the unit of the target; None for patches, which include all channels."""
        if self.method != GRADIENTS:
            return None
        return {kind: float(values.sum()) for kind, values in zip(self.channels, self.values, strict=True)}


@dataclass(frozen=True)
class Explanation:
    """Attribution of the prediction of a model for one crystal; all values in ``unit``."""

    model: str
    target: str
    unit: str
    source_id: str
    formula: str
    subset: str
    """Subset of the crystal in the model's split; ``none`` outside it."""
    fold: int | None
    """Fold of the explained model; None for the refit."""
    predicted: float
    known: float | None
    modalities: Parts
    pixels: Pixels | None = None
    text: str | None = None
    words: Parts | None = None
    features: Mapping[str, Parts] = field(default_factory=dict)
    """Groups of features of compositions and densities, by modality."""
    suspect: bool = False
    """Whether the known value is outside its plausible range."""


def explain(
    engine: Engine, settings: Settings, model: ResolvedModel, revision_id: int, *, progress: Progress | None = None
) -> Explanation:
    """Explain the prediction of a model for one crystal of the registry.

    Parameters
    ----------
    engine
        Missing features are computed and stored through it.
    settings
        Location of the weights.
    model
        From ``registry.model_store.resolve_model``.
    revision_id
        Revision of the crystal.
    progress
        Reports each modality.

    Raises
    ------
    IncompatibleInputError
        If the crystal lacks an input of the model, or the model has no inputs.
    ArtifactError
        If weights are missing or do not match their checksum.
    """
    progress = progress or Silent()
    with Session(engine) as session:
        predictor = Predictor.load(session, settings, model)
        split = _cross_validated(session, model)
        subset, fold = _role(session, model, revision_id)
        known = known_values(session, model.experiment.target, [revision_id]).get(revision_id)
        suspect = bool(suspect_values(session, model.experiment.target, [revision_id]))
        formula, source, source_id = session.execute(
            select(CrystalRevision.formula, Crystal.source, Crystal.source_id)
            .join(Crystal, Crystal.id == CrystalRevision.crystal_id)
            .where(CrystalRevision.id == revision_id)
        ).one()
        values = known_values(session, model.experiment.target, split.tolist())
    from registry.properties import property_named

    attributions = _Attributions(engine, predictor, fold, revision_id, split, sd=float(np.std(list(values.values()))))
    names = attributions.modalities
    if not names:
        raise IncompatibleInputError(
            f"{model.name} reads no input of a crystal, so its predictions cannot be explained"
        )
    progress.begin(f"{model.name}: {source}:{source_id}", len(names) + 1)
    try:
        shares = attributions.shares()
        progress.advance(1, "modalities")
        found: dict[str, Any] = {"features": {}}
        for name in names:
            if name == "image":
                found["pixels"] = replace(attributions.pixels(), window=attributions.window(engine))
            elif name == "text":
                found["text"], found["words"] = attributions.words()
            else:
                found["features"][name] = attributions.groups(name)
            progress.advance(1, name)
    finally:
        progress.end()
    return Explanation(
        model=model.name,
        target=model.experiment.target,
        unit=property_named(model.experiment.target).unit,
        source_id=f"{source}:{source_id}",
        formula=formula,
        subset=subset,
        fold=fold,
        predicted=shares.predicted,
        known=known,
        suspect=suspect,
        modalities=shares.parts,
        **found,
    )


@dataclass(frozen=True)
class _Shares:
    parts: Parts
    predicted: float
    """Prediction for the crystal itself."""


class _Attributions:
    """Attributions of the prediction of one fitted model for one crystal."""

    def __init__(
        self,
        engine: Engine,
        predictor: Predictor,
        fold: int | None,
        revision_id: int,
        split: NDArray[np.int64],
        *,
        sd: float,
    ) -> None:
        self._model: FittedModel = predictor.fitted(fold)
        self._sd = sd
        rng = np.random.default_rng(0)
        others = split[split != revision_id]
        chosen = np.sort(rng.permutation(others)[:BACKGROUND])
        inputs = predictor.inputs(engine, [revision_id, *chosen.tolist()])
        self._one = inputs.batch(np.array([revision_id], dtype=np.int64))
        self._others = inputs.batch(chosen)
        self.modalities = tuple(inputs.modalities)
        self._inputs = inputs
        self._rid, self._chosen = revision_id, chosen
        self._backbones: dict[str, Featurizer] = {}

    # ------------------------------------------------------------------------- modalities

    def shares(self) -> _Shares:
        """Exact Shapley values of the modalities."""
        names, n = self.modalities, len(self._others)
        one, own = self._repeated(n), float(self._model.predict(self._one)[0])

        def value(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
            predictions = []
            for mask in masks:
                present = {name for name, there in zip(names, mask, strict=True) if there}
                if len(present) == len(names):
                    predictions.append(own)
                    continue
                pick = {name: (one if name in present else self._others) for name in names}
                batch = Batch(
                    n,
                    {name: pick[name].features[name] for name in names if name in self._one.features},
                    {name: pick[name].raw[name] for name in names if name in self._one.raw},
                )
                predictions.append(float(self._model.predict(batch).mean()))
            return np.array(predictions)

        return _Shares(_parts(names, shapley(value, len(names))), own)

    # ----------------------------------------------------------------------------- pixels

    def pixels(self) -> Pixels:
        """Contributions of the pixels, by gradients if the model is differentiable."""
        ids = np.array([self._rid, *self._chosen.tolist()], dtype=np.int64)
        images = self._inputs.raw("image", ids)
        backbone = self._backbone("image")
        assert isinstance(backbone, ImageBackbone)
        kinds = backbone.channels
        scaled = np.stack([_scaled(images[:, i], kind) for i, kind in enumerate(kinds)], axis=1)
        start, end = torch.as_tensor(scaled[1:].mean(axis=0)), torch.as_tensor(scaled[0])
        path = self._network(kinds)
        if path is None:
            return self._patches(images, kinds, start.numpy(), end.numpy())
        inner, outer = path
        found = integrated_gradients(inner, start, end, outer=outer, tolerance=GAP * self._sd)
        return Pixels(images[0], found.values, kinds, GRADIENTS, found.start, found.end, found.steps, found.gap)

    def window(self, engine: Engine) -> tuple[float, float] | None:
        """Width and height of the slices [Å]; None for a Fourier transform or an imported image."""
        images = self._inputs.crystals.columns["image"]
        assert isinstance(images, ImageColumn)
        with Session(engine) as session:
            recipe = session.get(ImageRecipe, images.recipe_id)
        size = None if recipe is None or recipe.unit is None else recipe.parameters.get("window")
        return None if size is None else (float(size[0]), float(size[1]))

    def _network(self, kinds: Sequence[str]) -> tuple[Any, Any] | None:
        """The differentiable part of the model as a function of scaled channels, and the part behind it."""
        model, outer = self._model, None
        if isinstance(model, FittedJoin):
            join, tower = model, model.towers["image"]
            columns, predictions = list(join.towers).index("image"), tower_predictions(join.towers, self._one)

            def outer(values: NDArray[np.float64]) -> NDArray[np.float64]:
                rows = np.repeat(predictions, len(values), axis=0)
                rows[:, columns] = values
                return np.asarray(join.regressor.predict(rows), dtype=np.float64)

            model = tower
        if not isinstance(model, FittedNetwork):
            return None
        network, scaler, raw = model.network, model.target_scaler, model.reads_raw
        backbone = None if raw else self._backbone("image")
        assert backbone is None or isinstance(backbone, ImageBackbone)
        scale, mean = float(np.ravel(scaler.scale)[0]), float(np.ravel(scaler.mean)[0])
        own = (self._one.features, self._one.raw)

        def inner(scaled: Tensor) -> Tensor:
            pixels = torch.stack([_unscaled(scaled[:, i], kind) for i, kind in enumerate(kinds)], dim=1)
            n = len(scaled)
            others = to_inputs(**{**_tiled(own[0], n), **(_tiled(own[1], n) if raw else {})})
            inputs = {**others, "image": pixels if backbone is None else backbone(pixels)}
            predictions: Tensor = network(inputs) * scale + mean
            return predictions

        network.eval()
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        return inner, outer

    def _patches(
        self, images: NDArray[np.float32], kinds: Sequence[str], start: NDArray[np.float32], end: NDArray[np.float32]
    ) -> Pixels:
        rows, columns = (np.array_split(np.arange(size), PATCHES) for size in end.shape[1:])
        places = [(r[0], r[-1] + 1, c[0], c[-1] + 1) for r in rows for c in columns]

        def value(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
            slices = []
            for mask in masks:
                scaled = start.copy()
                for there, (top, bottom, left, right) in zip(mask, places, strict=True):
                    if there:
                        scaled[:, top:bottom, left:right] = end[:, top:bottom, left:right]
                tensor = torch.as_tensor(scaled)
                slices.append(torch.stack([_unscaled(tensor[i], kind) for i, kind in enumerate(kinds)]).numpy())
            return self._with("image", np.stack(slices))

        found = shapley(value, len(places), orders=3)
        spread = np.zeros(end.shape)
        for share, (top, bottom, left, right) in zip(found.values, places, strict=True):
            spread[:, top:bottom, left:right] = share / ((bottom - top) * (right - left) * len(kinds))
        gap = float(spread.sum()) - (found.full - found.empty)
        return Pixels(
            images[0], spread, tuple(kinds), "Shapley values of patches", found.empty, found.full, len(places), gap
        )

    # ------------------------------------------------------------------- words and features

    def words(self) -> tuple[str, Parts]:
        """The text, and the contributions of its words or sentences."""
        row = self._inputs.crystals.revision_ids.tolist().index(self._rid)
        text = str(self._inputs.crystals.columns["text"].values[row] or "")
        pieces = text.split()
        if len(pieces) > MAX_WORDS:
            pieces = [piece for piece in re.split(r"(?<=[.;])\s+", text) if piece]

        def value(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
            texts = [" ".join(p for p, there in zip(pieces, mask, strict=True) if there) or "." for mask in masks]
            return self._with("text", texts)

        return text, _parts(pieces, shapley(value, len(pieces)))

    def groups(self, modality: str) -> Parts:
        """Contributions of groups of features."""
        own = self._one.features[modality][0]
        mean = self._others.features[modality].mean(axis=0)
        backbone = self._backbone(modality) if modality in self._inputs.backbones else None
        labels = _labels(modality, backbone, len(own))
        names = tuple(dict.fromkeys(labels))
        members = [np.array([label == name for label in labels]) for name in names]

        def value(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
            rows = np.tile(mean, (len(masks), 1))
            for i, mask in enumerate(masks):
                for there, member in zip(mask, members, strict=True):
                    if there:
                        rows[i, member] = own[member]
            return self._predict(modality, len(masks), features=rows.astype(np.float32))

        return _parts(names, shapley(value, len(names)))

    # ---------------------------------------------------------------------------- helpers

    def _with(self, modality: str, values: Any) -> NDArray[np.float64]:
        """Predictions with other inputs of one modality, encoded first if the model takes features."""
        if reads_raw(self._model, modality):
            return self._predict(modality, len(values), raw=values)
        return self._predict(modality, len(values), features=self._backbone(modality).features(values))

    def _predict(
        self, modality: str, n: int, *, features: NDArray[np.float32] | None = None, raw: Any = None
    ) -> NDArray[np.float64]:
        batch = self._repeated(n)
        kept = {**batch.features} if features is None else {**batch.features, modality: features}
        return self._model.predict(Batch(n, kept, {**batch.raw} if raw is None else {**batch.raw, modality: raw}))

    def _repeated(self, n: int) -> Batch:
        return self._one.take(np.zeros(n, dtype=np.int64))

    def _backbone(self, modality: str) -> Featurizer:
        if modality not in self._backbones:
            backbone = self._inputs.backbones[modality]
            if isinstance(backbone, nn.Module):
                backbone.requires_grad_(False)  # loaded for this explanation only
            self._backbones[modality] = backbone
        return self._backbones[modality]


def _parts(names: Sequence[str], found: Shapley) -> Parts:
    return Parts(tuple(names), found.values, found.error, found.empty, found.full)


def _tiled(values: Mapping[str, Any], n: int) -> dict[str, Any]:
    return {
        name: np.repeat(one, n, axis=0) if isinstance(one, np.ndarray) else list(one) * n
        for name, one in values.items()
        if name != "image"
    }


def _labels(modality: str, backbone: Featurizer | None, n: int) -> list[str]:
    """Group name of each of n features."""
    if modality == "composition":
        from train.featurizers.composition import composition_labels
        from train.featurizers.magpie import magpie_labels

        for labels in (magpie_labels(), composition_labels()):
            if len(labels) == n:
                return [_property(label) for label in labels]
    named = getattr(backbone, "groups", None)
    if named is not None and len(named) == n:
        return list(named)
    size = max(1, -(-n // 16))
    return [f"features {size * (i // size)} to {min(n, size * (i // size) + size) - 1}" for i in range(n)]


def _property(label: str) -> str:
    """The element property of a statistic, or the kind of feature.

    >>> _property("MagpieData avg_dev MeltingT"), _property("mixing mean n_ws^third"), _property("elements Fe")
    ('MeltingT', 'n_ws^third', 'elements')
    """
    kind, _, rest = label.partition(" ")
    return rest.partition(" ")[2] if kind in ("MagpieData", "magpie", "mixing") else kind


def _scaled(pixels: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """Input of a backbone from a channel, in [0, 1]."""
    return np.asarray(CHANNEL_SCALES[kind](torch.as_tensor(pixels)).numpy(), dtype=np.float32)


def _unscaled(scaled: Tensor, kind: str) -> Tensor:
    """Pixels from the input of a backbone: the inverse of :func:`_scaled`."""
    scale = CHANNEL_SCALES[kind]
    if scale.form == "linear":
        return scaled * scale.limit
    span = float(np.arcsinh(scale.limit / scale.scale))
    return torch.sinh((2 * scaled - 1 if scale.form == "signed" else scaled) * span) * scale.scale


def _cross_validated(session: Session, model: ResolvedModel) -> NDArray[np.int64]:
    found = session.scalars(
        select(Prediction.revision_id)
        .join(ModelVersion, ModelVersion.id == Prediction.model_version_id)
        .where(
            ModelVersion.experiment_id == model.experiment.id,
            ModelVersion.phase == model.model_version.phase,
            Prediction.subset == "validation",
        )
        .order_by(Prediction.revision_id)
    )
    return np.array(list(found), dtype=np.int64)


def _role(session: Session, model: ResolvedModel, revision_id: int) -> tuple[str, int | None]:
    found = session.execute(
        select(Prediction.subset, ModelVersion.fold)
        .join(ModelVersion, ModelVersion.id == Prediction.model_version_id)
        .where(
            ModelVersion.experiment_id == model.experiment.id,
            ModelVersion.phase == model.model_version.phase,
            Prediction.revision_id == revision_id,
        )
        .order_by(ModelVersion.fold)
        .limit(1)
    ).one_or_none()
    return ("none", None) if found is None else (found[0], found[1] if found[0] == "validation" else None)
