"""Training: splits, features, models, experiments, prediction, analysis, and discovery.

It imports ``registry`` only. ``ecdreg`` imports it; ``ingest`` may not.
"""
