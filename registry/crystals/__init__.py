"""Crystals: the data that ingestion passes on, how they are written, and how a crystal is found by its id.

Every package may import it.
"""

from __future__ import annotations

from registry.crystals.data import CrystalData, DensityData, DescriptionData, PropertyData, SliceData
from registry.crystals.lookup import ResolvedCrystal, resolve
from registry.crystals.writing import WrittenCrystal, material_key_of, write_crystal

__all__ = [
    "CrystalData",
    "DensityData",
    "DescriptionData",
    "PropertyData",
    "ResolvedCrystal",
    "SliceData",
    "WrittenCrystal",
    "material_key_of",
    "resolve",
    "write_crystal",
]
