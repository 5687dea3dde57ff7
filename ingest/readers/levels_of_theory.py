"""Names of levels of theory, recognised in file contents and in user input."""

from __future__ import annotations

import re

from registry.properties import LEVELS_OF_THEORY

__all__ = ["UNSPECIFIED", "find_level_of_theory", "normalize_level_of_theory"]

UNSPECIFIED = "unspecified"

# The first match counts: PBE+U before PBE, r2SCAN before SCAN.
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


def find_level_of_theory(text: str | None) -> str:
    """Find a level of theory in a free text.

    ``"GPAW 22.8 PBE plane waves 400 eV"`` gives ``GGA``; a text without a recognised level, or no
    text, gives ``unspecified``. The text itself belongs in the provenance.
    """
    for pattern, name in _PATTERNS if text else ():
        if re.search(rf"(?<![A-Za-z0-9])(?:{pattern})(?![A-Za-z0-9])", text or "", flags=re.IGNORECASE):
            return name
    return UNSPECIFIED


def normalize_level_of_theory(name: str) -> str:
    """Normalise a level of theory that a user or a table gives.

    A registered name is returned unchanged; otherwise the level that :func:`find_level_of_theory`
    finds in it; otherwise the name itself, as a level of its own.
    """
    name = name.strip()
    if name in LEVELS_OF_THEORY:
        return name
    found = find_level_of_theory(name)
    return name if found == UNSPECIFIED and name else found
