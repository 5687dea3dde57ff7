"""What image and text backbones have in common."""

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
from train.models.devices import choose_device

__all__ = ["Backbone", "tensors_sha256"]


class Backbone(nn.Module):
    """A pre-trained network together with the adapter that prepares its input.

    Attributes
    ----------
    name
        As the user asked for it: a catalog's name, a folder or a hub id.
    modality
        ``image`` or ``text``.
    dim
        Number of features D that :meth:`forward` gives.
    """

    name: str
    modality: str
    dim: int
    _weights_sha256: str | None = None

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights as they are now; see :func:`tensors_sha256`. Computed once, until they train."""
        if self._weights_sha256 is None:
            self._weights_sha256 = tensors_sha256(self.network.state_dict())
        return self._weights_sha256

    def train(self, mode: bool = True) -> Backbone:
        """As torch has it; weights that train lose their checksum."""
        if mode:
            self._weights_sha256 = None
        super().train(mode)
        return self

    @property
    def groups(self) -> tuple[str, ...]:
        """Group of each feature, (:attr:`dim`,): what belongs together, for regressors that weigh groups as a whole."""
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
            Inputs at a time.
        device
            As torch names it; None is the best one here. The backbone ends on the CPU.

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
        """What happens to an input before the weights see it, and to their output after.

        Nothing in it is fitted. It tells one encoder from another, so it changes whenever
        the features would.
        """
        raise NotImplementedError

    def spec(self) -> dict[str, Any]:
        """JSON arguments of :func:`train.features.loading.load_backbone`."""
        raise NotImplementedError


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors: names, dtypes, shapes and little-endian values, sorted by name.

    The same weights have the same sum whatever file they came from.
    """
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
