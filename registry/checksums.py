"""Checksums of JSON values, which name the version of a set of parameters."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["json_sha256", "text_sha256"]


def json_sha256(value: Any) -> str:
    """SHA-256 (hex) of a JSON value; the order of keys does not matter.

    Raises
    ------
    TypeError
        If it is not a JSON value.
    ValueError
        If it contains NaN or an infinity, which JSON does not have.

    Examples
    --------
    >>> json_sha256({"a": 1, "b": [2.5, None]}) == json_sha256({"b": (2.5, None), "a": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def text_sha256(value: str) -> str:
    """SHA-256 (hex) of a text in UTF-8."""
    return hashlib.sha256(value.encode()).hexdigest()
