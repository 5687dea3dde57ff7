"""Benchmarks: vector search of the registry beside FAISS and hnswlib.

The package ``ecdreg`` itself does not import it; the command ``ecdreg bench`` does.
"""
