"""Experiments: rows of a split, folds, stacks, the refit, tuning, jobs, and locks.

It writes model versions, predictions and embeddings. ``train.paper`` and ``ecdreg`` import it.
"""
