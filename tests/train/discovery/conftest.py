"""Fixtures of discovery: rock salts, and a composition baseline trained on them."""

from __future__ import annotations

from tests.rock_salts import baseline, salts

__all__ = ["baseline", "salts"]
