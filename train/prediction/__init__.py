"""Prediction: trained models on crystals of the registry or of files, with intervals.

``train.experiments``, ``train.analysis``, ``train.discovery`` and ``ecdreg`` import it.
"""
