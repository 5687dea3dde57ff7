"""Experiments: rows of a split, folds, stacks, the refit, tuning, jobs, and locks.

The package writes model versions, predictions and embeddings. It imports ``train.featurizers``, ``train.modalities``,
``train.config``, ``train.features``, ``train.models`` and ``train.prediction``. ``train.paper`` and ``ecdreg`` import
it.
"""
