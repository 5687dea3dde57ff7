"""Files outside the database: model artifacts, density grids, and the cache of downloads.

Every package may import it.
"""
