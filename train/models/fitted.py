"""Fitted models: their interface, and the contexts in which a kind of model is fitted and restored.

The module reads no database, no split and no scored fold: a caller gives the rows to fit and the rows of early
stopping, and scores the model on rows that this package never receives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from train.config.config import TrainConfig
from train.features.batch import Batch
from train.featurizers.catalog import Featurizer
from train.models.records import BackboneRecord

if TYPE_CHECKING:
    from train.models.optimization import EpochRecord, FitResult

__all__ = [
    "FitContext",
    "FittedModel",
    "OnEpoch",
    "RestoreContext",
    "StackInputs",
    "derived_seed",
]

OnEpoch: TypeAlias = "Callable[[str, EpochRecord], None]"
"""Receives the phase and the record of each epoch."""


class FittedModel(Protocol):
    """A model after one of its phases."""

    @property
    def phase(self) -> str:
        """``align``, ``readout`` or ``finetune``; ``fit`` for a model that is fitted in one step."""

    @property
    def result(self) -> FitResult | None:
        """Learning curve of the phase; None for a model without epochs."""

    def predict(self, batch: Batch) -> NDArray[np.float64]:
        """Values in the unit of the target, (N,)."""

    def scalers(self) -> dict[str, Any]:
        """Parameters other than weights that were fitted to the training rows, as a JSON object."""

    @property
    def reads_raw(self) -> bool:
        """Whether it has fine-tuned backbones and reads raw inputs."""

    @property
    def extra(self) -> Mapping[str, Any]:
        """Description of the training data that is stored with a restored model."""

    @property
    def records(self) -> Mapping[str, BackboneRecord]:
        """The featurizers of a restored model, by modality."""

    def to_bytes(self, *, extra: dict[str, Any]) -> bytes:
        """The model as safetensors."""


@dataclass(frozen=True)
class StackInputs:
    """Data to which a stack is fitted besides the features of its rows."""

    towers: Mapping[str, FittedModel]
    """By modality: towers fitted to the rows."""
    features: NDArray[np.float32] | None = None
    """(N, width), penultimate features of towers that had not been fitted to the row, where the dense layers of the
    stack are fitted to such features."""
    predictions: NDArray[np.float64] | None = None
    """(N, T), predictions of towers that had not been fitted to the row, in the unit of the target, where a regressor
    is fitted to predictions."""


@dataclass(frozen=True)
class FitContext:
    """Data and options of a fit."""

    config: TrainConfig
    """Kind, layers and phases."""
    batch: Batch
    """The N rows to fit."""
    targets: NDArray[np.float64]
    """(N,) in the unit of the target, or (N, 1 + A) where the values of A auxiliary targets follow, in their units, NaN
    where one is not known. Scalers are fitted to these alone."""
    seed: int
    """Seed of the initial weights, the order of the rows and dropout."""
    stop: tuple[Batch, NDArray[np.float64]] | None = None
    """Rows of early stopping, with their values; nothing is fitted to them."""
    epochs: Mapping[str, int] | None = None
    """Epochs of each phase, where there are no rows of early stopping; without either, ``max_epochs``."""
    stack: StackInputs | None = None
    """For a stack that does not join features: its towers, and what it is fitted to."""
    backbones: Mapping[str, Featurizer] = field(default_factory=dict)
    """Featurizers by modality: fine-tuning trains copies of them, a regressor reads their groups of features."""
    on_epoch: OnEpoch | None = None
    """Receives each epoch."""

    @property
    def values(self) -> NDArray[np.float64]:
        """(N,), in the unit of the target."""
        return self.targets if self.targets.ndim == 1 else self.targets[:, 0]

    def derived_seed(self, *parts: object) -> int:
        """Derive a separate seed for each purpose."""
        return derived_seed(self.seed, *parts)


@dataclass(frozen=True)
class RestoreContext:
    """Sources of the featurizers of a restored model."""

    backbones: Mapping[str, Featurizer] = field(default_factory=dict)
    """Featurizers by modality; they must be those that the model was trained with."""
    models: Path | None = None
    """Folder of pre-trained backbones; None is ``ECDREG_MODELS``."""

    def only(self, modality: str) -> RestoreContext:
        """The same with the featurizer of one modality alone."""
        return replace(self, backbones={name: one for name, one in self.backbones.items() if name == modality})


def derived_seed(seed: int, *parts: object) -> int:
    """Derive a separate seed for each purpose, so that no two draws of an experiment are the same.

    >>> derived_seed(0, "weights", 1) == derived_seed(0, "weights", 1) != derived_seed(0, "weights", 2)
    True
    """
    text = ":".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
