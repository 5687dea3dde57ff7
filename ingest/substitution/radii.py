"""Atomic radii (Slater) and ionic radii (Shannon), as tabulated in pymatgen."""

from __future__ import annotations

import math
import warnings
from functools import cache

__all__ = ["radius", "sphere_volume"]


@cache
def radius(atom: str) -> float | None:
    """Radius of an atom (``Ti``) or of an ion (``Ti 4``) [Å]; None where pymatgen has none."""
    from pymatgen.core.periodic_table import Element, Species

    symbol, _, charge = atom.partition(" ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about elements without a radius
        found = Species(symbol, int(charge)).ionic_radius if charge else None
        found = found or Element(symbol).atomic_radius
    return float(found) if found else None


def sphere_volume(atom: str) -> float:
    """Volume of a sphere with the radius of an atom or ion, or with 1.5 Å where there is none [Å^3]."""
    return 4.0 / 3.0 * math.pi * (radius(atom) or 1.5) ** 3
