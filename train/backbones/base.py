"""Base class of image and text backbones, and the checksum of their weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from registry.errors import ModelError
from train.backbones.devices import choose_device

__all__ = ["Backbone", "tensors_sha256"]


class Backbone(nn.Module):
    """A pre-trained network with the adapter that prepares its input; a :class:`train.featurizers.catalog.Featurizer`.

    Attributes
    ----------
    name
        Name in a catalog, a folder or a hub id.
    modality
        ``image`` or ``text``.
    dim
        Number of features D.
    """

    name: str
    modality: str
    dim: int
    _weights_sha256: str | None = None

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the current weights, see :func:`tensors_sha256`; cached until the weights are trained."""
        if self._weights_sha256 is None:
            self._weights_sha256 = tensors_sha256(self.network.state_dict())
        return self._weights_sha256

    def train(self, mode: bool = True) -> Backbone:
        """Set training mode as in torch, and drop the cached checksum of trainable weights."""
        if mode:
            self._weights_sha256 = None
        super().train(mode)
        return self

    @property
    def groups(self) -> tuple[str, ...]:
        """Group of each feature, (:attr:`dim`,), for regressors with groups of features."""
        return (self.modality,) * self.dim

    @property
    def network(self) -> nn.Module:
        """The pre-trained network, without its adapter."""
        raise NotImplementedError

    def features(self, values: Any, *, batch_size: int = 32, device: str | None = None) -> NDArray[np.float32]:
        """Frozen features of N inputs, shape (N, :attr:`dim`); dropout and gradients off.

        Parameters
        ----------
        values
            Slices (N, C, H, W) as an array or a tensor, in the unit of their recipe; or N texts.
        batch_size
            Inputs of a batch.
        device
            Device in torch's naming; None for the fastest available. The backbone is on the CPU afterwards.

        Raises
        ------
        ModelError
            If an input cannot be encoded, or a feature is not finite.
        """
        place = choose_device(device)
        if isinstance(values, np.ndarray):
            values = torch.as_tensor(values, dtype=torch.float32)
        self.eval()
        self.to(place)
        parts = [np.empty((0, self.dim), np.float32)]
        try:
            with torch.inference_mode():
                for start in range(0, len(values), batch_size):
                    batch = values[start : start + batch_size]
                    if isinstance(batch, Tensor):
                        batch = batch.to(place)
                    parts.append(self(batch).float().cpu().numpy())
        finally:
            self.to("cpu")
        features = np.concatenate(parts)
        if not np.isfinite(features).all():
            bad = int(np.flatnonzero(~np.isfinite(features).all(axis=1))[0])
            raise ModelError(f"backbone {self.name!r} gives features that are not finite for input number {bad}")
        return features

    def preprocessing(self) -> dict[str, Any]:
        """JSON description of the processing before and after the weights.

        No parameter in it is fitted. It identifies an encoder, so that it must change whenever the features change.
        """
        raise NotImplementedError

    def spec(self) -> dict[str, Any]:
        """JSON arguments of :func:`train.modalities.restore_featurizer`."""
        raise NotImplementedError


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors: names, dtypes, shapes and little-endian values, sorted by name.

    Equal weights have equal checksums, independent of the file that they were read from.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
