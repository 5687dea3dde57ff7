"""Configurations of models: their types, the kinds of models, their versions, and their files.

It imports ``train.config_base`` and ``train.modalities``. ``train.features``, ``train.models``, ``train.experiments``,
``train.prediction``, ``train.discovery``, ``train.paper`` and ``ecdreg`` import it.
"""
