"""Features: featurizers of every modality, their inputs, and the cache of feature vectors.

It imports ``train.config`` and ``train.backbones``. Models, experiments and prediction import it.
"""
