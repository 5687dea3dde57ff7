"""Choice of the torch device."""

from __future__ import annotations

import torch

from registry.errors import ConfigurationError

__all__ = ["choose_device", "has_accelerator"]


def choose_device(name: str | None = None) -> torch.device:
    """Choose the device for training and prediction.

    Parameters
    ----------
    name
        Device in torch's naming (``cpu``, ``cuda``, ``cuda:1``, ``mps``); None for the fastest available.

    Raises
    ------
    ConfigurationError
        If the device is not available.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigurationError(f"device {name!r} is not a device; choose cpu, cuda or mps") from None
    missing = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
    if missing.get(device.type, False):
        raise ConfigurationError(f"device {name!r} is not available on this machine; choose cpu")
    return device


def has_accelerator() -> bool:
    """Whether the default device is a GPU."""
    return choose_device().type != "cpu"
