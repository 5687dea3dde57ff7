"""Configurations of a training as TOML files."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import ConfigurationError

if TYPE_CHECKING:
    from train.config.config import TrainConfig

__all__ = ["read_config", "toml_of"]


def toml_of(config: TrainConfig) -> str:
    """A configuration as TOML: its own fields, then a table for each phase."""
    fields = config.to_dict()
    tables = {name: value for name, value in fields.items() if isinstance(value, dict)}
    lines = [f"{name} = {_value(value)}" for name, value in fields.items() if name not in tables]
    for name, table in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def read_config(file: Path, kind: str) -> dict[str, Any]:
    """Fields of a configuration in a TOML file, but for its kind and target.

    Parameters
    ----------
    file
        As :func:`toml_of` writes it; fields that are left out have their defaults.
    kind
        Of the model that is to be made of it.

    Raises
    ------
    ConfigurationError
        If it cannot be read, or is of another kind.
    """
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}; give a TOML file to --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is no TOML: {error}; `ecdreg tune` writes such files") from error
    if (of := found.pop("kind", kind)) != kind:
        raise ConfigurationError(f"{file} is a configuration of kind {of!r}, not {kind!r}; train {of}, or give another")
    found.pop("target", None)
    return found


def _value(value: Any) -> str:
    # JSON's texts, numbers, booleans and lists are TOML's.
    return json.dumps(value, ensure_ascii=False)
