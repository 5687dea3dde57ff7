"""Features: inputs of models, their views and labels, and the cache of feature vectors.

It imports ``train.config``, ``train.modalities`` and ``train.featurizers``. Models and everything above import it.
"""
