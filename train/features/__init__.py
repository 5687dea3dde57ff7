"""Features: inputs of models, their views and labels, and the cache of feature vectors.

It imports ``train.config_base``, ``train.featurizers``, ``train.modalities`` and ``train.config``. ``train.models``,
``train.experiments``, ``train.prediction``, ``train.analysis``, ``train.discovery`` and ``ecdreg`` import it.
"""
