"""Bytes of a file, decompressed where it is gzipped."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from registry.errors import InputError

__all__ = ["plain_name", "read_bytes"]


def read_bytes(path: Path) -> bytes:
    """Read the content of ``path``; a file with the suffix ``.gz`` is decompressed.

    Raises
    ------
    InputError
        If there is no such file, it cannot be read, or its gzip stream is damaged or truncated.
    """
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except EOFError:
        raise InputError(f"{path.name}: the gzip stream ends too early; the file is truncated, copy it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{path.name}: damaged gzip file ({error}); copy it again or decompress it with gzip"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def plain_name(path: Path) -> str:
    """Name of the file without ``.gz``."""
    return path.name.removesuffix(".gz")
