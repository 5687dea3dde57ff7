"""Records that identify the featurizer of a tower beside a stored model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from train.featurizers.catalog import Featurizer

__all__ = ["BackboneRecord", "record_of"]


@dataclass(frozen=True)
class BackboneRecord:
    """Identity of the featurizer that computes the features of a tower."""

    spec: dict[str, Any]
    """Arguments with which :func:`train.modalities.restore_featurizer` loads it again."""
    preprocessing: dict[str, Any]
    weights_sha256: str
    """Of its weights: the pre-trained ones, or the fine-tuned ones where they are stored."""
    stored: bool
    """Whether the weights are in the checkpoint."""


def record_of(featurizer: Featurizer) -> BackboneRecord:
    """The record of a featurizer whose weights are not stored."""
    return BackboneRecord(featurizer.spec(), featurizer.preprocessing(), featurizer.weights_sha256, stored=False)
