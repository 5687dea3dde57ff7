"""Featurizers: features of formulas and of densities by a fixed rule, without weights.

It imports nothing else of ``train`` and not PyTorch. ``train.modalities``, ``train.features``, ``train.models``,
``train.experiments``, ``train.prediction``, ``train.analysis`` and ``ecdreg`` import it.
"""
