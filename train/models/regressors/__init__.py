"""Regressors that are not networks: ridge, kernel ridge, Gaussian process, trees and baselines.

They import ``train.models.safetensors_io`` and ``train.models.scalers``. ``train.models.fitted_regressors``,
``train.models.kinds``, ``train.models.options`` and ``train.experiments`` import them.
"""
