"""Benchmarks: the vector search of the registry, with FAISS and hnswlib as references.

The command ``ecdreg bench`` imports it; the other modules of the library do not.
"""
