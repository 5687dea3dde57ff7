"""Names of levels of theory, from what files and people call them."""

from __future__ import annotations

import re

from registry.properties import LEVELS_OF_THEORY

__all__ = ["UNSPECIFIED", "level_in_text", "level_named"]

UNSPECIFIED = "unspecified"

# The first that matches wins: PBE+U before PBE, r2SCAN before SCAN.
_PATTERNS: tuple[tuple[str, str], ...] = (
    (r"r\^?[2²]SCAN", "r2SCAN"),
    (r"SCAN", "SCAN"),
    (r"HSE(?:06)?", "HSE06"),
    (r"PBE-?sol", "PBEsol"),
    (r"GGA_GGA\+U", "GGA_GGA+U"),
    (r"(?:PBE|GGA) ?\+ ?U", "GGA+U"),
    (r"PBE|GGA", "GGA"),
    (r"LDA", "LDA"),
)


def level_in_text(text: str | None) -> str:
    """The level of theory that a free text speaks of.

    ``"GPAW 22.8 PBE plane waves 400 eV"`` is ``GGA``; what says nothing that is known, or
    nothing at all, is ``unspecified``. The text itself belongs into the provenance.
    """
    for pattern, name in _PATTERNS if text else ():
        if re.search(rf"(?<![A-Za-z0-9])(?:{pattern})(?![A-Za-z0-9])", text or "", flags=re.IGNORECASE):
            return name
    return UNSPECIFIED


def level_named(name: str) -> str:
    """The level of theory that a person named: a known name as it is, else the level that
    :func:`level_in_text` finds in it, else the name itself, as a level of its own.
    """
    name = name.strip()
    if name in LEVELS_OF_THEORY:
        return name
    found = level_in_text(name)
    return name if found == UNSPECIFIED and name else found
