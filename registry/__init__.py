"""Storage: tables, invariants, provenance, splits, the model store, and search.

Every other package may import it. It imports ``migrations``, to upgrade the schema, and no other package.
"""
