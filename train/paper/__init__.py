"""The paper: its experiments as a matrix, its published numbers, and reference models.

It imports ``train.modalities``, ``train.config``, ``train.models`` and ``train.experiments``. ``ecdreg`` imports it.
"""
