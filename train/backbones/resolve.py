"""Location and reading of the weights of a backbone: folders, hub repositories, weight files."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from registry.errors import ConfigurationError
from registry.settings import Settings

__all__ = ["WEIGHTS", "find_folder", "hub_folder", "load_exactly", "read_json", "read_safetensors", "read_weights"]

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of weight files, in order of preference. Some repositories have only the second, older format, of which only
tensors are read (``weights_only``)."""

_HUB_SECONDS = 5.0
"""Timeout of the check of the connection to the hub [s]."""


def find_folder(name: str, *, models: Path | None) -> Path | None:
    """Find the folder of a name: a path, or a folder under ``ECDREG_MODELS``.

    Parameters
    ----------
    name
        A path, or a name such as ``inception_v3`` or ``FacebookAI/roberta-base``.
    models
        Folder of pre-trained backbones; None is ``ECDREG_MODELS``.

    Returns
    -------
    Path or None
        None if there is no such folder.
    """
    if models is None:
        models = Settings.from_environ().models
    places = [Path(name).expanduser()] if name.startswith(("/", ".", "~")) else []
    if models is not None:
        places.append(models / name)
    return next((place.absolute() for place in places if place.is_dir()), None)


def hub_folder(name: str, hub_id: str, *, files: tuple[str, ...], layout: str) -> Path:
    """Return a folder with files of a hub repository, downloaded if they are not in the hub's cache.

    Parameters
    ----------
    name
        Name that the user gave.
    hub_id
        Repository on the hub, ``owner/name``.
    files
        Patterns of the required files, in addition to one of :data:`WEIGHTS`.
    layout
        Files of a local folder, for the message.

    Raises
    ------
    ConfigurationError
        If the hub is not reachable, or does not have the repository.
    """
    import huggingface_hub
    from huggingface_hub import get_session, is_offline_mode

    def cached_or_downloaded(local_only: bool) -> Path:
        for weights in WEIGHTS:
            found = huggingface_hub.snapshot_download(
                hub_id, allow_patterns=[*files, weights], local_files_only=local_only
            )
            if (Path(found) / weights).is_file():
                return Path(found)
        if local_only:
            raise FileNotFoundError(found)  # an interrupted download
        raise ConfigurationError(f"{hub_id} on the hub has neither {' nor '.join(WEIGHTS)}; choose another one")

    advice = f"put {layout} into a folder and name it, or into ECDREG_MODELS/{name}"
    try:
        return cached_or_downloaded(local_only=True)
    except (OSError, ValueError):  # not in the cache
        pass
    if is_offline_mode():
        raise ConfigurationError(f"backbone {name!r} is not available locally, and the hub is switched off; {advice}")
    try:
        # Checked first, because a download without a connection retries for most of a minute.
        get_session().head(huggingface_hub.constants.ENDPOINT, timeout=_HUB_SECONDS)
        return cached_or_downloaded(local_only=False)
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"backbone {name!r} is available neither locally nor on the hub ({type(error).__name__}); {advice}"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    ConfigurationError
        If the file is missing or is not a JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}); it must be a JSON file") from None
    if not isinstance(values, dict):
        raise ConfigurationError(f"{path} is not a JSON object; see the layout of a backbone's folder")
    return values


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, by name.

    Raises
    ------
    ConfigurationError
        If the file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(f"weights {path} cannot be read ({error}); a .safetensors file is needed") from None
    return tensors


def read_weights(folder: Path, *, layout: str) -> dict[str, Tensor]:
    """Read the tensors of a backbone's folder, by name, from the first existing file of :data:`WEIGHTS`.

    Parameters
    ----------
    folder
        Folder of the backbone.
    layout
        Files that it needs, for the message.

    Raises
    ------
    ConfigurationError
        If there is no such file, or it is damaged or contains other objects than tensors.
    """
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise ConfigurationError(f"{folder} has no {WEIGHTS[0]}; it needs {layout}")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigurationError(f"weights {path} cannot be read ({first}); give {WEIGHTS[0]}") from None
    if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise ConfigurationError(f"weights {path} are not a mapping of names to tensors; give {WEIGHTS[0]}")
    return tensors


def load_exactly(network: nn.Module, tensors: dict[str, Tensor], *, source: str, ignore: tuple[str, ...] = ()) -> None:
    """Load weights, requiring that names and shapes match exactly.

    Parameters
    ----------
    network
        Network that receives the weights.
    tensors
        Weights by name.
    source
        Origin of the weights, for the message.
    ignore
        Prefixes of names of parts that the network does not have.

    Raises
    ------
    ConfigurationError
        If a name is missing or unexpected, or a shape differs.
    """
    wanted = network.state_dict()
    left = [name for name in tensors if name not in wanted and not name.startswith(ignore)]
    # Counters of batches are not weights; old files lack them.
    missing = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    unlike = [name for name, value in wanted.items() if name in tensors and tensors[name].shape != value.shape]
    for what, names in (("missing", missing), ("unexpected", left), ("of another shape", unlike)):
        if names:
            raise ConfigurationError(
                f"weights of {source} do not fit {type(network).__name__}: {names[0]!r} is {what}"
                f" ({len(names)} such); give weights of this architecture"
            )
    with torch.no_grad():
        network.load_state_dict({name: value for name, value in tensors.items() if name in wanted}, strict=False)
