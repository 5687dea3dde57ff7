"""Ingestion: from a source of crystals to densities, slices and texts, and into the registry.

It imports ``registry`` only. ``ecdreg`` imports it; ``train`` may not.
"""
