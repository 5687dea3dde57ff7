"""Fitting one model: from fresh weights through its phases, on the rows it is given and no others.

Nothing here knows a database, a split or a fold that is scored: a caller hands over the rows to fit and
the rows to stop on, and scores what comes out on rows that this module never saw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from registry.errors import ModelError
from train.config.config import FIXED_MODALITIES, SHARED_SPACE, TrainConfig
from train.features.featurizers import Featurizer
from train.models import optimization as engine
from train.models.building import build_network
from train.models.checkpoints import BackboneRecord, from_bytes, to_bytes
from train.models.networks import Inputs, StackedNetwork, Tower
from train.models.optimization import EpochRecord, FitResult
from train.models.regressors.baselines import MagpieBaseline, MeanBaseline
from train.models.scalers import StandardScaler

__all__ = [
    "FittedBaseline",
    "FittedModel",
    "FittedNetwork",
    "OnEpoch",
    "Shown",
    "derived_seed",
    "fit_phases",
    "phases_of",
    "restore",
    "telling",
]

OnEpoch: TypeAlias = Callable[[str, EpochRecord], None]
"""Told of each epoch: the phase and its record."""


@dataclass(frozen=True)
class Shown:
    """What is shown to a model of N crystals: frozen features, and raw inputs where backbones train."""

    n: int
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """by modality, (N, D)"""
    raw: Mapping[str, NDArray[np.float32] | Sequence[str]] = field(default_factory=dict)
    """by modality: pixels (N, C, H, W) in the unit of the recipe, or N texts"""

    def __len__(self) -> int:
        return self.n

    def take(self, rows: NDArray[np.int64]) -> Shown:
        """The given rows, in the given order."""
        return Shown(
            n=len(rows),
            features={name: values[rows] for name, values in self.features.items()},
            raw={
                name: values[rows] if isinstance(values, np.ndarray) else [values[i] for i in rows]
                for name, values in self.raw.items()
            },
        )

    def inputs(self, *, raw: bool) -> Inputs:
        """As a network takes them: raw inputs where there are any, or frozen features."""
        return engine.to_inputs(**({**self.features, **self.raw} if raw else self.features))


class FittedModel(Protocol):
    """A model after one of its phases."""

    @property
    def phase(self) -> str:
        """``readout``, ``finetune``, or ``fit`` for a baseline."""

    @property
    def result(self) -> FitResult | None:
        """Learning curve of the phase; None for a baseline."""

    def predict(self, shown: Shown) -> NDArray[np.float64]:
        """Values in the unit of the target, (N,)."""

    def scalers(self) -> dict[str, Any]:
        """What was fitted to the training rows besides weights, as JSON takes it."""

    @property
    def reads_raw(self) -> bool:
        """Whether it holds fine-tuned backbones and takes raw inputs."""

    @property
    def extra(self) -> Mapping[str, Any]:
        """What was stored beside a restored model: what it was trained on."""

    @property
    def records(self) -> Mapping[str, BackboneRecord]:
        """The backbones of a restored model, by modality."""

    def to_bytes(self, *, extra: dict[str, Any]) -> bytes:
        """The model as safetensors."""


@dataclass(frozen=True)
class FittedNetwork:
    """A network after one of its phases."""

    config: TrainConfig
    network: Tower | StackedNetwork
    target_scaler: StandardScaler
    phase: str
    reads_raw: bool
    """Whether it holds fine-tuned backbones and takes raw inputs."""
    result: FitResult | None = None
    backbones: Mapping[str, Featurizer] = field(default_factory=dict)
    """The pre-trained backbones that its features come from, by modality; in a restored network those that it
    was given. A join stores its towers anew, with these."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What was stored beside a restored network."""
    records: Mapping[str, BackboneRecord] = field(default_factory=dict)
    """The backbones of a restored network, by modality."""

    def predict(self, shown: Shown) -> NDArray[np.float64]:
        """Values in the unit of the target, (N,)."""
        if not len(shown):
            return np.empty(0)
        return self.target_scaler.inverse(engine.predict(self.network, shown.inputs(raw=self.reads_raw)))

    def encode(self, shown: Shown) -> NDArray[np.float32]:
        """Penultimate features, (N, width)."""
        return engine.encode(self.network, shown.inputs(raw=self.reads_raw))

    def scalers(self) -> dict[str, Any]:
        """The target's mean and scale; the features' lie with the weights."""
        return {"target": self.target_scaler.to_dict()}

    def to_bytes(self, *, extra: dict[str, Any]) -> bytes:
        """Weights, scalers and config as safetensors; frozen backbones by their checksum alone."""
        return to_bytes(
            self.network,
            self.config,
            target_scaler=self.target_scaler,
            phase=self.phase,
            extra=extra,
            backbones=self.backbones,
        )


@dataclass(frozen=True)
class FittedBaseline:
    """A baseline: the mean of the training rows, or trees on Magpie features."""

    model: MeanBaseline | MagpieBaseline
    phase: str = "fit"
    result: FitResult | None = None
    reads_raw: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    records: Mapping[str, BackboneRecord] = field(default_factory=dict)

    def predict(self, shown: Shown) -> NDArray[np.float64]:
        """Values in the unit of the target, (N,)."""
        if isinstance(self.model, MeanBaseline):
            return self.model.predict(len(shown))
        return self.model.predict(shown.features["composition"]) if len(shown) else np.empty(0)

    def scalers(self) -> dict[str, Any]:
        """Nothing: a baseline works in the unit of the target."""
        return {}

    def to_bytes(self, *, extra: dict[str, Any]) -> bytes:
        """The baseline as safetensors; ``extra`` lies with the experiment."""
        return self.model.to_bytes()


def phases_of(config: TrainConfig) -> tuple[str, ...]:
    """The phases that a model goes through, in order.

    A stack always has its second one: with frozen backbones, it trains the dense layers of the towers. A dual encoder
    is aligned before it has a readout.
    """
    if not config.is_network:
        return ("fit",)
    if config.kind == "dual-encoder":
        return ("align", "readout", *(("finetune",) if config.finetune_enabled else ()))
    if config.kind == "stacked" or (config.finetune_enabled and config.kind not in FIXED_MODALITIES):
        return ("readout", "finetune")
    return ("readout",)


def derived_seed(seed: int, *parts: object) -> int:
    """A seed of its own for each purpose, so that no two draws of an experiment are the same.

    >>> derived_seed(0, "weights", 1) == derived_seed(0, "weights", 1) != derived_seed(0, "weights", 2)
    True
    """
    text = ":".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def fit_phases(
    config: TrainConfig,
    shown: Shown,
    values: NDArray[np.float64],
    *,
    seed: int,
    stop: tuple[Shown, NDArray[np.float64]] | None = None,
    epochs: Mapping[str, int] | None = None,
    towers: Mapping[str, FittedModel] | None = None,
    joined: NDArray[np.float32] | None = None,
    unseen: NDArray[np.float64] | None = None,
    backbones: Mapping[str, Featurizer] | None = None,
    on_epoch: OnEpoch | None = None,
) -> Iterator[FittedModel]:
    """Fit a model from fresh weights; yields it after each phase, and changes it in the next.

    Parameters
    ----------
    config
        Kind, layers and phases.
    shown, values
        The rows to fit, N of them; values (N,) in the unit of the target, or (N, 1 + A) with those of the config's A
        auxiliary targets behind, in their units, NaN where one is not known. Scalers are fitted on these alone.
    seed
        Of the initial weights, the order of the rows and dropout.
    stop
        Rows that stopping looks at and that nothing is fitted to.
    epochs
        Epochs of each phase, where there is no ``stop``; without either, ``max_epochs``.
    towers
        For a stack: its trained towers.
    joined
        For a stack: tower features (N, width) that its readout is fitted to instead of the towers' own.
    unseen
        For a stack joined by a regressor: what its towers said of each row that had not been fitted to it, (N, T),
        in the unit of the target.
    backbones
        The pre-trained backbones by modality, where they are fine-tuned; else only named in the checkpoint.
    on_epoch
        Told of each epoch.

    Raises
    ------
    ModelError
        If a stack comes without towers, or the loss is not finite.
    """
    if config.kind == "stacked" and not config.joins_features and towers is None:
        raise ModelError("a stack needs the trained towers of its fold")
    frozen = dict(backbones or {})
    taught, values = values, values if values.ndim == 1 else values[:, 0]
    if not config.is_network:
        yield _fit_at_once(config, shown, values, seed=seed, towers=towers, unseen=unseen, backbones=frozen)
        return
    if config.kind in SHARED_SPACE:
        from train.models.contrastive import fit_contrastive  # it is built on this module

        yield from fit_contrastive(
            config, shown, values, seed=seed, stop=stop, epochs=epochs, backbones=frozen, on_epoch=on_epoch
        )
        return
    scaler = StandardScaler.fit(values)
    dims = {name: features.shape[1] for name, features in shown.features.items()}
    joins = None if towers is None else {name: _network_of(tower) for name, tower in towers.items()}
    network = build_network(config, dims, derived_seed(seed, "weights"), towers=joins)
    if isinstance(network, Tower):
        network.scale.set(StandardScaler.fit(network.views.rows(shown.features[network.modality])))
    for phase in phases_of(config):
        settings = config.readout if phase == "readout" else config.finetune
        reads_raw = _reads_raw(config, phase)
        network.set_phase("readout" if phase == "readout" else "finetune")
        if reads_raw and isinstance(network, Tower):
            network.attach(frozen[network.modality])
        see = _Seen(network, raw=reads_raw, as_joined=phase == "readout")
        result = engine.fit(
            network,
            see(shown) if joined is None or phase != "readout" else engine.to_inputs(joined=joined),
            _standardised(taught) if config.auxiliary_targets else scaler.transform(values),
            phase=settings,
            seed=derived_seed(seed, "fit", phase),
            stop=None if stop is None else (see(stop[0]), scaler.transform(stop[1])),
            epochs=None if stop is not None else (epochs or {}).get(phase, settings.max_epochs),
            on_epoch=None if on_epoch is None else telling(on_epoch, phase),
        )
        yield FittedNetwork(config, network, scaler, phase, reads_raw, result, frozen)


@dataclass(frozen=True)
class _Seen:
    """What a phase of a network trains from."""

    network: Tower | StackedNetwork
    raw: bool
    as_joined: bool

    def __call__(self, shown: Shown) -> Inputs:
        inputs = shown.inputs(raw=self.raw)
        if self.as_joined and isinstance(self.network, StackedNetwork):
            # The towers are frozen: their features are computed once, not in every epoch.
            return engine.to_inputs(joined=engine.encode(self.network, inputs, joined=True))
        return inputs


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Every column standardised on the rows where it is known, (N, 1 + A) -> (N, 1 + A)."""
    columns = []
    for column in values.T:
        known = np.isfinite(column)
        columns.append(StandardScaler.fit(column[known]).transform(column) if known.any() else column)
    return np.column_stack(columns)


def telling(on_epoch: OnEpoch, phase: str) -> Callable[[EpochRecord], None]:
    """Tells of the epochs of one phase."""

    def tell(record: EpochRecord) -> None:
        on_epoch(phase, record)

    return tell


def _network_of(tower: FittedModel) -> Tower:
    if isinstance(tower, FittedNetwork) and isinstance(tower.network, Tower):
        return tower.network
    raise ModelError("a stack whose towers are no networks is joined by a regressor; set join to the name of one")


def _fit_at_once(
    config: TrainConfig,
    shown: Shown,
    values: NDArray[np.float64],
    *,
    seed: int,
    towers: Mapping[str, FittedModel] | None,
    unseen: NDArray[np.float64] | None,
    backbones: Mapping[str, Featurizer],
) -> FittedModel:
    """What is fitted without epochs."""
    from train.models.joins import fit_join, fit_regressor  # they are built on this module

    if config.is_baseline:
        return _fit_baseline(config, shown, values, seed=seed)
    if config.kind != "stacked" or config.joins_features:
        return fit_regressor(config, shown, values, seed=derived_seed(seed, "regressor"), backbones=backbones)
    if unseen is None:
        raise ModelError("a stack joined by a regressor needs what its towers said of rows that they had not seen")
    return fit_join(config, towers or {}, unseen, values, seed=derived_seed(seed, "join"))


def _fit_baseline(config: TrainConfig, shown: Shown, values: NDArray[np.float64], *, seed: int) -> FittedBaseline:
    if config.kind == "baseline-mean":
        return FittedBaseline(MeanBaseline.fit(values))
    features = shown.features["composition"]
    return FittedBaseline(
        MagpieBaseline.fit(features, values, seed=derived_seed(seed, "trees"), n_estimators=config.n_estimators)
    )


def restore(
    config: TrainConfig, data: bytes, *, backbones: Mapping[str, Featurizer] | None = None, models: Path | None = None
) -> FittedModel:
    """The model that :meth:`FittedModel.to_bytes` wrote.

    Parameters
    ----------
    config
        Its kind decides how the bytes are read.
    data
        safetensors.
    backbones
        Pre-trained backbones by modality, which must be those that the model was trained on.
    models
        Folder of pre-trained backbones; None is ``ECDREG_MODELS``.

    Raises
    ------
    ArtifactError
        If the bytes are no such model, or a backbone is another one.
    ConfigurationError
        If a fine-tuned backbone's architecture cannot be resolved here.
    """
    if config.kind == "baseline-mean":
        return FittedBaseline(MeanBaseline.from_bytes(data))
    if config.kind == "baseline-magpie":
        return FittedBaseline(MagpieBaseline.from_bytes(data))
    if not config.is_network:
        from train.models.joins import restore_join, restore_regressor  # they are built on this module

        if config.kind == "stacked" and not config.joins_features:
            return restore_join(data, backbones=backbones, models=models)
        return restore_regressor(data)
    checkpoint = from_bytes(data, backbones=backbones, models=models)
    return FittedNetwork(
        checkpoint.config,
        checkpoint.network,
        checkpoint.target_scaler,
        checkpoint.phase,
        _reads_raw(checkpoint.config, checkpoint.phase),
        backbones={name: backbone for name, backbone in (backbones or {}).items() if name in checkpoint.backbones},
        extra=checkpoint.extra,
        records=checkpoint.backbones,
    )


def _reads_raw(config: TrainConfig, phase: str) -> bool:
    # A stack's towers have been fine-tuned before the stack begins.
    if config.kind in FIXED_MODALITIES:
        return False
    return config.finetune_enabled and (phase == "finetune" or config.kind == "stacked")
