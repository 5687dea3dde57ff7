"""Preparation of one crystal: reading, checks, slices, texts and checksums, as pure functions of a record.

``options`` has the options of an ingest, ``prepare`` the entry points. It imports ``densities``,
``free_atoms``, ``slices``, ``sources`` and ``texts`` of ``ingest``. ``ingest.pipeline``, ``ingest.workers``,
``ingest.preflight``, ``ingest.preload``, ``ingest.dry_run`` and ``ecdreg`` import it.
"""
