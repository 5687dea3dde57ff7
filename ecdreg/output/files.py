"""Output files of reports and figures: refused before the work if the path is unsuitable, replaced as a whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from registry.errors import ConfigurationError

__all__ = ["check_output_path", "write_output"]


def check_output_path(path: Path, suffixes: Sequence[str] = ()) -> None:
    """Check that a file can be written, before the work for it is done.

    Parameters
    ----------
    path
        The file.
    suffixes
        Permitted endings, as ``.html``; empty: any.

    Raises
    ------
    ConfigurationError
        If its ending is not permitted, its folder does not exist, or it is a folder itself.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        *others, last = suffixes
        listed = f"{', '.join(others)} or {last}" if others else last
        raise ConfigurationError(f"cannot write {path}: its name must end in {listed}; choose another file with -o")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ConfigurationError(f"cannot write {path}: no such folder, or a folder itself; give a file to -o")


def write_output(path: Path, data: str | bytes) -> Path:
    """Write a file as a whole or not at all.

    Parameters
    ----------
    path
        The file; replaced if it exists.
    data
        Text is encoded as UTF-8.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    ConfigurationError
        If it cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(data.encode() if isinstance(data, str) else data)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigurationError(f"cannot write {path}: {error.strerror}; choose another file with -o") from error
    return path
