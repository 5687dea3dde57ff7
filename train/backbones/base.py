"""What image and text backbones have in common."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

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
        """SHA-256 of the weights as they were loaded; see :func:`tensors_sha256`."""
        if self._weights_sha256 is None:
            self._weights_sha256 = tensors_sha256(self.network.state_dict())
        return self._weights_sha256

    @property
    def network(self) -> nn.Module:
        """The pre-trained network, without its adapter."""
        raise NotImplementedError

    def preprocessing(self) -> dict[str, Any]:
        """What happens to an input before the weights see it, and to their output after.

        Nothing in it is fitted. It tells one encoder from another, so it changes whenever
        the features would.
        """
        raise NotImplementedError

    def spec(self) -> dict[str, Any]:
        """What :func:`train.backbones.load_backbone` needs to make this backbone again."""
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
