"""Names of levels of theory in texts and in user input."""

from __future__ import annotations

import pytest

from ingest.readers.levels_of_theory import find_level_of_theory, normalize_level_of_theory


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("GPAW 22.8 PBE plane waves 400 eV", "GGA"), ("PBE+U, U(Fe) = 5.3 eV", "GGA+U"), ("GGA + U", "GGA+U"),
        ("GGA_GGA+U", "GGA_GGA+U"), ("r2SCAN", "r2SCAN"), ("r²SCAN meta-GGA", "r2SCAN"), ("SCAN", "SCAN"),
        ("PBEsol", "PBEsol"), ("HSE06 hybrid", "HSE06"), ("LDA (PZ)", "LDA"), ("PBE0", "unspecified"),
        ("Hartree-Fock", "unspecified"), ("", "unspecified"), (None, "unspecified"), ("scanned", "unspecified"),
    ],
)  # fmt: skip
def test_levels_of_theory_in_texts(text: str | None, level: str) -> None:
    assert find_level_of_theory(text) == level


def test_levels_of_theory_by_name() -> None:
    assert normalize_level_of_theory("GGA+U") == "GGA+U"
    assert normalize_level_of_theory("PBE") == "GGA"
    assert normalize_level_of_theory(" unspecified ") == "unspecified"
    assert normalize_level_of_theory("B3LYP") == "B3LYP"  # a level of its own
