"""Splits: fixed assignment of crystals to cv, holdout or excluded, by rule or from a file.

It reads and writes tables of ``registry``. ``train`` and ``ecdreg`` import it.
"""
