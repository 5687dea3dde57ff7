"""Where tensors live: the one place that chooses a device."""

from __future__ import annotations

import torch

from registry.errors import ConfigurationError

__all__ = ["choose_device", "has_accelerator"]


def choose_device(name: str | None = None) -> torch.device:
    """The device to train and predict on.

    Parameters
    ----------
    name
        As torch names it (``cpu``, ``cuda``, ``cuda:1``, ``mps``); None is the best one here.

    Raises
    ------
    ConfigurationError
        If the device does not exist here.
    """
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigurationError(f"device {name!r} is no device; choose cpu, cuda or mps") from None
    missing = {"cuda": not torch.cuda.is_available(), "mps": not torch.backends.mps.is_available()}
    if missing.get(device.type, False):
        raise ConfigurationError(f"device {name!r} is not there on this machine; choose cpu")
    return device


def has_accelerator() -> bool:
    """Whether fine-tuning would not run on the CPU."""
    return choose_device().type != "cpu"
