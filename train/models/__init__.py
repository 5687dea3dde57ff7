"""Models: networks, regressors, joins, baselines, scalers, checkpoints, and scores.

It fits the rows that it is given and reads no database and no split. Experiments and prediction import it.
"""
