"""Charge densities: checks of grid, cell and electrons, regridding, and reduced grids.

They read no file and no database, and import ``registry`` only.
The rest of ``ingest`` and ``ecdreg`` may import them.
"""
