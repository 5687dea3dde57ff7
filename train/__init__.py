"""Training: splits, features, models, experiments, prediction, analysis, and discovery.

It imports ``registry`` alone. ``ecdreg`` and ``cli`` may import it; ``ingest`` may not.
"""
