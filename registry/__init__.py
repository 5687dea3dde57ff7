"""Storage: tables, invariants, provenance, splits, the model store, and search.

Every other package may import it; it imports none of them.
"""
