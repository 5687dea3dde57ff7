"""Searches: similar crystals, crystals by properties, proposals; and the encoders, indexes and quality of searches.

It imports ``train``, ``ingest``, ``registry``, ``ecdreg.files`` and ``ecdreg.results``. ``ecdreg.registry`` imports it.
"""
