"""Charge densities: checks of what a density must satisfy, regridding, and reduced grids.

It reads no file and no database. ``ingest`` and ``ecdreg`` import it.
"""
