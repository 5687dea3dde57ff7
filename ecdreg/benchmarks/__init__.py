"""Benchmarks: vector search compared with FAISS and hnswlib, and deformation densities from free atoms.

The command ``ecdreg bench`` imports it; the other modules of the library do not.
"""
