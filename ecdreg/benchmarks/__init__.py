"""Benchmarks: vector search compared with FAISS and hnswlib, and deformation densities from free atoms.

``cli.commands.bench`` imports it.
"""
