"""Ingestion: from a source of crystals to densities, slices and texts, and into the registry.

It imports ``registry`` alone. ``ecdreg`` and ``cli`` may import it; ``train`` may not.
"""
