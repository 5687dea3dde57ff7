"""Fixtures of the library, shared with the commands."""

from __future__ import annotations

from tests.rock_salts import baseline, salts
from tests.small_registry import crystals, models, vectors

__all__ = ["baseline", "crystals", "models", "salts", "vectors"]
