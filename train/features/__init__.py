"""Features: inputs of models, their views and labels, and the cache of feature vectors.

It imports ``train.config`` and ``train.backbones``. Models, experiments and prediction import it.
"""
