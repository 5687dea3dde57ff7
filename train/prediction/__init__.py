"""Prediction: trained models on crystals of the registry or of files, with intervals.

It imports ``train.featurizers``, ``train.modalities``, ``train.config``, ``train.features`` and ``train.models``.
``train.experiments``, ``train.analysis``, ``train.discovery`` and ``ecdreg`` import it.
"""
