"""Slice images: planes through a density, image recipes, crystal symmetry, and space groups.

It reads no file and no database. ``ingest`` and ``ecdreg`` import it.
"""
