"""Configurations of models: their types, the kinds of models, their versions, and their files.

It imports ``train.modalities``. Features, models and everything above import it.
"""
