"""Features: how each modality is read and turned into vectors, and the cache of vectors.

It imports ``train.config`` and ``train.backbones``. Models, experiments and prediction import it.
"""
