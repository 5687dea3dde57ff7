"""Conversion of trained networks to bytes and back: safetensors, never pickle.

What is stored: every weight and statistic of the network (feature scalers among them), and
in the metadata the config, the target's scaler and the identity of each backbone. A frozen
backbone is not stored again; its SHA-256 is, and is compared when it is needed. Fine-tuned
weights are stored. The same network gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from registry.errors import ArtifactError, ConfigurationError, IncompatibleInputError, ModelError, UnknownNameError
from train.backbones.base import Backbone
from train.config.config import TrainConfig
from train.config.kinds import parse_config
from train.featurizers.catalog import Featurizer
from train.modalities import restore_featurizer
from train.models.building import build_network
from train.models.networks import StackedNetwork, Tower
from train.models.records import BackboneRecord
from train.models.safetensors_io import pack, unpack
from train.models.scalers import StandardScaler

__all__ = ["Checkpoint", "from_bytes", "to_bytes"]


@dataclass(frozen=True)
class Checkpoint:
    """A network with all that was fitted beside it."""

    network: Tower | StackedNetwork
    """In evaluation mode; backbones attached where their weights are stored."""
    config: TrainConfig
    target_scaler: StandardScaler
    phase: str
    extra: dict[str, Any] = field(default_factory=dict)
    backbones: dict[str, BackboneRecord] = field(default_factory=dict)
    """By modality."""


def to_bytes(
    network: Tower | StackedNetwork,
    config: TrainConfig,
    *,
    target_scaler: StandardScaler,
    phase: str,
    extra: Mapping[str, Any] | None = None,
    backbones: Mapping[str, Featurizer] | None = None,
) -> bytes:
    """A network as safetensors.

    Parameters
    ----------
    network
        With or without backbones attached.
    config
        What it was built from.
    target_scaler
        Of the target, shape ().
    phase
        Phase that it went through last: readout or finetune.
    extra
        Anything else, as JSON takes it.
    backbones
        The pre-trained backbones by modality. Attached weights equal to theirs are left out.

    Raises
    ------
    ModelError
        If a weight is not finite, or ``extra`` is not valid JSON.
    """
    given = dict(backbones or {})
    tensors = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    records: dict[str, BackboneRecord] = {}
    for modality, (prefix, tower) in _towers(network).items():
        pretrained = given.get(modality)
        used = tower.backbone or pretrained
        if used is None:
            continue
        trained = tower.backbone is not None and (
            pretrained is None or tower.backbone.weights_sha256 != pretrained.weights_sha256
        )
        records[modality] = BackboneRecord(used.spec(), used.preprocessing(), used.weights_sha256, trained)
        if not trained:
            tensors = {name: value for name, value in tensors.items() if not name.startswith(f"{prefix}backbone.")}
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"weight {name!r} is not finite; the model diverged and cannot be saved")
    about = {
        "config": config.to_dict(),
        "dims": {modality: tower.dim for modality, (_, tower) in _towers(network).items()},
        "target_scaler": target_scaler.to_dict(),
        "phase": phase,
        "extra": dict(extra or {}),
        "backbones": {modality: vars(record) for modality, record in records.items()},
    }
    return pack(tensors, kind="network", about=about)


def from_bytes(
    data: bytes, *, backbones: Mapping[str, Featurizer] | None = None, models: Path | None = None
) -> Checkpoint:
    """The network that :func:`to_bytes` wrote.

    Parameters
    ----------
    data
        safetensors.
    backbones
        Pre-trained backbones by modality, to be compared with those of the model. A
        fine-tuned one takes its architecture from here instead of being loaded once more.
    models
        Folder of pre-trained backbones; None is ``ECDREG_MODELS``.

    Raises
    ------
    ArtifactError
        If the bytes are damaged, of a newer format, no network, or a backbone given has
        other weights than the model was trained on.
    IncompatibleInputError
        If a backbone given prepares its input in another way.
    ConfigurationError
        If a fine-tuned backbone's architecture cannot be resolved here.
    """
    tensors, about = unpack(data, kind="network")
    given = dict(backbones or {})
    try:
        config = parse_config(about["config"])
        records = {name: BackboneRecord(**record) for name, record in about["backbones"].items()}
        scaler = StandardScaler.from_dict(about["target_scaler"])
        network = build_network(config, about["dims"], 0)
        phase, extra = str(about["phase"]), dict(about["extra"])
    except (KeyError, TypeError, ConfigurationError, UnknownNameError) as error:
        raise ArtifactError(f"a network's metadata cannot be used ({error}); train the model again") from None
    for modality, record in records.items():
        if modality in given:
            _compare(given[modality], record)
        if record.stored:
            tower = _towers(network)[modality][1]
            tower.attach(_trainable(given.get(modality) or restore_featurizer(record.spec, models=models)))
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise ArtifactError(f"weights do not fit their network: {first[0].strip()}; train the model again") from None
    network.eval()
    return Checkpoint(network, config, scaler, phase, extra, records)


def _towers(network: Tower | StackedNetwork) -> dict[str, tuple[str, Tower]]:
    """Towers by modality, each with the prefix of its weights' names."""
    if isinstance(network, Tower):
        return {network.modality: ("", network)}
    return {name: (f"towers.{name}.", network.tower(name)) for name in network.modalities}


def _compare(backbone: Featurizer, record: BackboneRecord) -> None:
    if not record.stored and backbone.weights_sha256 != record.weights_sha256:
        raise ArtifactError(
            f"backbone {backbone.name!r} has weights {backbone.weights_sha256[:12]}, the model was trained on"
            f" {record.weights_sha256[:12]}; bring those back, or train again"
        )
    if backbone.preprocessing() != record.preprocessing:
        raise IncompatibleInputError(
            f"backbone {backbone.name!r} prepares its input otherwise than when the model was trained; train again"
        )


def _trainable(featurizer: Featurizer) -> Backbone:
    if not isinstance(featurizer, Backbone):
        raise ArtifactError(f"the checkpoint has weights of {featurizer.name!r}, which is a fixed rule; train it again")
    return featurizer
