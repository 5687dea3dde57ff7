"""Preparation of one crystal: reading, checks, slices, texts and checksums, as pure functions of a record.

``options`` has the options of an ingest, ``prepare`` the entry points. It imports all packages of ``ingest`` below it.
``ingest.pipeline``, ``ingest.workers``, ``ingest.dry_run``, ``ecdreg`` and ``cli`` may import it.
"""
