"""Files outside the database: model weights, density grids, and the cache of downloaded objects.

Every package may import it.
"""
