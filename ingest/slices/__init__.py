"""Slice images: planes through a density, image recipes, crystal axes, and space groups.

They read no file and no database, and import ``densities`` and ``registry``.
The rest of ``ingest`` and ``ecdreg`` may import them.
"""
