"""Discovery: search by properties, and the ranking of proposed crystals by trained models.

It imports ``train.config``, ``train.features`` and ``train.prediction``. ``ecdreg`` imports it.
"""
