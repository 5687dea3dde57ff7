"""Analysis of trained models: attribution, comparison, retrieval, and projections.

It fits no model that is kept. It imports ``train.featurizers``, ``train.backbones``, ``train.modalities``,
``train.features``, ``train.models`` and ``train.prediction``. ``ecdreg`` imports it.
"""
