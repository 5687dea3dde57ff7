"""Regressors that are not networks: ridge, kernel ridge, Gaussian process, trees and baselines.

They import ``train.models.scalers`` and ``train.models.safetensors_io`` only. ``train.models`` and above import them.
"""
