"""Serialization of tensors and their description as safetensors; nothing is pickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from registry.errors import ArtifactError, ModelError

__all__ = ["FORMAT", "pack", "unpack"]

FORMAT = 1
"""Version of the layout; :func:`unpack` refuses any other."""

_KEY = "ecdreg"  # a single metadata entry, because safetensors does not keep the order of several


def pack(tensors: Mapping[str, Tensor], *, kind: str, about: Mapping[str, Any]) -> bytes:
    """Serialize tensors and a description as safetensors; equal content gives equal bytes.

    Parameters
    ----------
    tensors
        By name.
    kind
        Kind of model, for instance ``network``; :func:`unpack` checks it.
    about
        Description as JSON values; numbers must be finite.

    Raises
    ------
    ModelError
        If ``about`` cannot be written as JSON.
    """
    from safetensors.torch import save

    try:
        text = json.dumps({"format": FORMAT, "kind": kind, **about}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ModelError(f"the description of a model must be JSON: {error}") from None
    # Clones, because safetensors refuses tensors that share memory.
    return save({name: value.clone() for name, value in sorted(tensors.items())}, metadata={_KEY: text})


def unpack(data: bytes, *, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the description that :func:`pack` wrote.

    Parameters
    ----------
    data
        safetensors.
    kind
        Kind of model that is expected.

    Raises
    ------
    ArtifactError
        If the bytes are damaged, of a newer format, or of another kind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_KEY])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"weights are damaged or not written by ecdreg ({error}); train the model again") from None
    if about.get("format") != FORMAT:
        raise ArtifactError(f"weights of format {about.get('format')}, this version reads {FORMAT}; upgrade ecdreg")
    if about.get("kind") != kind:
        raise ArtifactError(f"weights of a {about.get('kind')}, not of a {kind}; name another model")
    return tensors, about
