"""Why a model says what it says of a crystal: the shares of its modalities, of pixels, of words, of other features.

Everything is divided without remainder (:mod:`train.analysis.attribution`):

* modalities: exact Shapley values; a modality that is absent is taken from other crystals of the split, and the
  prediction averaged over them. The shares sum to the prediction minus the mean prediction of those crystals.
* pixels: integrated gradients through readout and backbone, from the mean slice of the split to that of the crystal,
  straight in the values that the backbone sees (its fixed channel scales); all other inputs are the crystal's own.
  Where an image tower ends in a regressor without gradients, Shapley values of square patches.
* words, and the named features of compositions and densities: Shapley values over random orders. Words that are absent
  are left out of the text; features that are absent have their mean over the split.

A crystal that a fold left out is explained with the model of that fold, which has not seen it; any other with the
refit.
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
from train.features.featurizers import Featurizer
from train.features.labels import known_values, suspect_values
from train.modalities.image import ImageColumn
from train.models.fitted import FittedModel
from train.models.fitted_regressors import FittedJoin, tower_predictions
from train.models.network_fitting import FittedNetwork
from train.models.optimization import to_inputs
from train.prediction.predictor import Predictor, reads_raw

__all__ = ["Explanation", "Parts", "Pixels", "explain"]

BACKGROUND = 64
"""Crystals of the split that an absent modality is taken from, and that the mean slice is of."""

PATCHES = 6
"""Patches a side, where pixels have no gradients."""

MOST_WORDS = 24
"""Words up to which each has a share of its own; of longer texts, sentences have."""

GRADIENTS = "integrated gradients"
"""How pixels get their shares wherever the model has slopes in them."""

GAP = 0.001
"""Part of the standard deviation of the known values that integrated gradients may miss, where 1 % of what they divide
is less."""


@dataclass(frozen=True)
class Parts:
    """Named parts and their shares in the prediction."""

    names: tuple[str, ...]
    values: NDArray[np.float64]
    """(n,), in the unit of the target"""
    error: NDArray[np.float64]
    """(n,), standard error over the orders that were drawn; 0 where they are exact"""
    empty: float
    """Prediction without all of them, in the unit of the target."""
    full: float
    """Prediction with all of them."""


@dataclass(frozen=True)
class Pixels:
    """Shares of the pixels of a slice."""

    image: NDArray[np.float32]
    """(C, H, W), in the unit of the recipe"""
    values: NDArray[np.float64]
    """(C, H, W), in the unit of the target; the share of a patch is spread evenly over its pixels and all channels"""
    channels: tuple[str, ...]
    """Kind of each channel."""
    method: str
    """integrated gradients, or Shapley values of patches"""
    empty: float
    """Prediction with the mean slice of the split instead, in the unit of the target."""
    full: float
    steps: int
    gap: float
    """What the shares miss of ``full - empty``."""
    window: tuple[float, float] | None = None
    """Width and height of the slice [Å]; None where its recipe has no metric."""

    @property
    def by_channel(self) -> dict[str, float] | None:
        """Share of each channel, in the unit of the target; None for patches, which are taken through all channels."""
        if self.method != GRADIENTS:
            return None
        return {kind: float(values.sum()) for kind, values in zip(self.channels, self.values, strict=True)}


@dataclass(frozen=True)
class Explanation:
    """Why a model says what it says of one crystal; all values in ``unit``."""

    model: str
    target: str
    unit: str
    source_id: str
    formula: str
    subset: str
    """Part that the crystal plays in the model's split; none: outside it."""
    fold: int | None
    """The fold whose model is explained; None: the refit."""
    predicted: float
    known: float | None
    modalities: Parts
    pixels: Pixels | None = None
    text: str | None = None
    words: Parts | None = None
    features: Mapping[str, Parts] = field(default_factory=dict)
    """Of compositions and densities, by modality: groups of features."""
    suspect: bool = False
    """Whether the known value is marked suspect: outside its plausible range."""


def explain(
    engine: Engine, settings: Settings, model: ResolvedModel, revision_id: int, *, progress: Progress | None = None
) -> Explanation:
    """Explain what a model says of one crystal of the registry.

    Parameters
    ----------
    engine
        Features that are missing are computed, and kept.
    settings
        Where weights are kept.
    model
        As ``registry.model_store.resolve_model`` gives it.
    revision_id
        The crystal.
    progress
        Told of each part.

    Raises
    ------
    IncompatibleInputError
        If the crystal lacks what the model reads, or the model looks at nothing.
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

    asked = _Asked(engine, predictor, fold, revision_id, split, sd=float(np.std(list(values.values()))))
    names = asked.modalities
    if not names:
        raise IncompatibleInputError(f"{model.name} looks at nothing of a crystal, so nothing explains what it says")
    progress.begin(f"{model.name}: {source}:{source_id}", len(names) + 1)
    try:
        shares = asked.shares()
        progress.advance(1, "modalities")
        found: dict[str, Any] = {"features": {}}
        for name in names:
            if name == "image":
                found["pixels"] = replace(asked.pixels(), window=asked.window(engine))
            elif name == "text":
                found["text"], found["words"] = asked.words()
            else:
                found["features"][name] = asked.groups(name)
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
        predicted=shares.full_of_one,
        known=known,
        suspect=suspect,
        modalities=shares.parts,
        **found,
    )


@dataclass(frozen=True)
class _Shares:
    parts: Parts
    full_of_one: float


class _Asked:
    """One crystal before one fitted model."""

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
            said = []
            for mask in masks:
                mine = {name for name, there in zip(names, mask, strict=True) if there}
                if len(mine) == len(names):
                    said.append(own)
                    continue
                pick = {name: (one if name in mine else self._others) for name in names}
                batch = Batch(
                    n,
                    {name: pick[name].features[name] for name in names if name in self._one.features},
                    {name: pick[name].raw[name] for name in names if name in self._one.raw},
                )
                said.append(float(self._model.predict(batch).mean()))
            return np.array(said)

        return _Shares(_parts(names, shapley(value, len(names))), own)

    # ----------------------------------------------------------------------------- pixels

    def pixels(self) -> Pixels:
        """Shares of the pixels, by gradients where there are any."""
        ids = np.array([self._rid, *self._chosen.tolist()], dtype=np.int64)
        images = self._inputs.raw("image", ids)
        backbone = self._backbone("image")
        assert isinstance(backbone, ImageBackbone)
        kinds = backbone.channels
        seen = np.stack([_seen(images[:, i], kind) for i, kind in enumerate(kinds)], axis=1)
        start, end = torch.as_tensor(seen[1:].mean(axis=0)), torch.as_tensor(seen[0])
        path = self._network(kinds)
        if path is None:
            return self._patches(images, kinds, start.numpy(), end.numpy())
        inner, outer = path
        found = integrated_gradients(inner, start, end, outer=outer, tolerance=GAP * self._sd)
        return Pixels(images[0], found.values, kinds, GRADIENTS, found.start, found.end, found.steps, found.gap)

    def window(self, engine: Engine) -> tuple[float, float] | None:
        """Width and height of the slices [Å]; None for a transform, and for pictures rendered elsewhere."""
        images = self._inputs.crystals.columns["image"]
        assert isinstance(images, ImageColumn)
        with Session(engine) as session:
            recipe = session.get(ImageRecipe, images.recipe_id)
        size = None if recipe is None or recipe.unit is None else recipe.parameters.get("window")
        return None if size is None else (float(size[0]), float(size[1]))

    def _network(self, kinds: Sequence[str]) -> tuple[Any, Any] | None:
        """The differentiable part of the model as a function of what a backbone sees, and what comes behind it."""
        model, outer = self._model, None
        if isinstance(model, FittedJoin):
            join, tower = model, model.towers["image"]
            columns, said = list(join.towers).index("image"), tower_predictions(join.towers, self._one)

            def outer(values: NDArray[np.float64]) -> NDArray[np.float64]:
                rows = np.repeat(said, len(values), axis=0)
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

        def inner(seen: Tensor) -> Tensor:
            pixels = torch.stack([_unseen(seen[:, i], kind) for i, kind in enumerate(kinds)], dim=1)
            n = len(seen)
            others = to_inputs(**{**_tiled(own[0], n), **(_tiled(own[1], n) if raw else {})})
            inputs = {**others, "image": pixels if backbone is None else backbone(pixels)}
            said: Tensor = network(inputs) * scale + mean
            return said

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
            said = []
            for mask in masks:
                seen = start.copy()
                for there, (top, bottom, left, right) in zip(mask, places, strict=True):
                    if there:
                        seen[:, top:bottom, left:right] = end[:, top:bottom, left:right]
                tensor = torch.as_tensor(seen)
                said.append(torch.stack([_unseen(tensor[i], kind) for i, kind in enumerate(kinds)]).numpy())
            return self._with("image", np.stack(said))

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
        """The text, and the shares of its words or sentences."""
        row = self._inputs.crystals.revision_ids.tolist().index(self._rid)
        text = str(self._inputs.crystals.columns["text"].values[row] or "")
        pieces = text.split()
        if len(pieces) > MOST_WORDS:
            pieces = [piece for piece in re.split(r"(?<=[.;])\s+", text) if piece]

        def value(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
            texts = [" ".join(p for p, there in zip(pieces, mask, strict=True) if there) or "." for mask in masks]
            return self._with("text", texts)

        return text, _parts(pieces, shapley(value, len(pieces)))

    def groups(self, modality: str) -> Parts:
        """Shares of groups of features."""
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
        """Predictions with other raw inputs of one modality, or with their features where the model reads those."""
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
                backbone.requires_grad_(False)  # loaded for this explanation alone, so nothing else is affected
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
    """A name for the group that each of n features belongs to."""
    if modality == "composition":
        from train.features.composition import composition_labels
        from train.features.magpie import magpie_labels

        for labels in (magpie_labels(), composition_labels()):
            if len(labels) == n:
                return [_property(label) for label in labels]
    named = getattr(backbone, "groups", None)
    if named is not None and len(named) == n:
        return list(named)
    size = max(1, -(-n // 16))
    return [f"features {size * (i // size)} to {min(n, size * (i // size) + size) - 1}" for i in range(n)]


def _property(label: str) -> str:
    """The property of the elements that a statistic is of, or the kind of feature.

    >>> _property("MagpieData avg_dev MeltingT"), _property("mixing mean n_ws^third"), _property("elements Fe")
    ('MeltingT', 'n_ws^third', 'elements')
    """
    kind, _, rest = label.partition(" ")
    return rest.partition(" ")[2] if kind in ("MagpieData", "magpie", "mixing") else kind


def _seen(pixels: NDArray[np.float32], kind: str) -> NDArray[np.float32]:
    """What a backbone sees of a channel, in [0, 1]."""
    return np.asarray(CHANNEL_SCALES[kind](torch.as_tensor(pixels)).numpy(), dtype=np.float32)


def _unseen(seen: Tensor, kind: str) -> Tensor:
    """Pixels that a backbone sees as these: the inverse of the channel's scale."""
    scale = CHANNEL_SCALES[kind]
    if scale.form == "linear":
        return seen * scale.limit
    span = float(np.arcsinh(scale.limit / scale.scale))
    return torch.sinh((2 * seen - 1 if scale.form == "signed" else seen) * span) * scale.scale


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
