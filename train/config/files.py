"""Configurations as TOML files."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import tomli_w

from registry.errors import ConfigurationError
from train.config.config import TrainConfig
from train.config.version1 import KINDS_1, from_version_1

__all__ = ["read_config", "toml_of"]


def toml_of(config: TrainConfig) -> str:
    """A configuration as TOML."""
    return tomli_w.dumps(config.to_dict())


def read_config(file: Path, kind: str) -> dict[str, Any]:
    """Fields of the configuration in a TOML file, without its target.

    Parameters
    ----------
    file
        As :func:`toml_of` writes it, or with the flat fields of version 1; fields that are left out have their
        defaults.
    kind
        Kind of the model to train.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, or holds another kind.
    """
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}; give a TOML file to --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is not TOML: {error}; `ecdreg tune` writes such files") from error
    found.pop("target", None)
    if "type" not in found and "kind" not in found and kind not in KINDS_1:
        return found  # of an added kind, which version 1 did not have
    if "type" not in found:
        if (of := found.get("kind", kind)) != kind:
            raise _other_kind(file, of, kind)
        return from_version_1({**found, "kind": kind})
    of = _kind(found)
    if of != kind:
        raise _other_kind(file, of, kind)
    return found


def _kind(fields: dict[str, Any]) -> str:
    """Kind of the model that the fields describe."""
    type_ = fields["type"]
    if type_ == "tower":
        return str(fields.get("modality"))
    if type_ == "baseline":
        return f"baseline-{fields.get('name')}"
    if type_ == "contrastive":
        return "clip" if fields.get("encoder", {}).get("type") == "clip" else "dual-encoder"
    return "stacked" if type_ == "stack" else str(type_)


def _other_kind(file: Path, of: str, kind: str) -> ConfigurationError:
    return ConfigurationError(f"{file} has a configuration of kind {of!r}, not {kind!r}; train {of}, or give another")
