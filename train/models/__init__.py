"""Models: networks, regressors, joins, baselines, scalers, checkpoints, and scores.

The package fits the rows that it receives, and reads no database and no split. It imports ``train.featurizers``,
``train.backbones``, ``train.modalities``, ``train.config`` and ``train.features``. ``train.experiments``,
``train.prediction``, ``train.analysis``, ``train.paper`` and ``ecdreg`` import it.
"""
