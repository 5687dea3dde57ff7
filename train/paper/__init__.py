"""The paper: its experiments as a matrix, its published numbers, and reference models.

It imports ``train.experiments`` and ``train.analysis``. ``ecdreg`` imports it.
"""
