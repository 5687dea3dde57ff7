"""Ingestion: from a source of crystals to densities, slices and texts, and into the registry.

It imports ``registry`` only. ``ecdreg`` and ``cli`` may import it; ``train`` may not.
"""
