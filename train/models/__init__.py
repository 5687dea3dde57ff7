"""Models: networks, regressors, joins, baselines, scalers, checkpoints, and scores.

It fits the rows that it is given and knows no database and no split. Experiments and prediction import it.
"""
