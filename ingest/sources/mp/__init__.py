"""Materials Project: structures, properties, densities and texts, with a rate limit and resumable.

``source`` lists materials through the mp-api ``client``; a record of ``records`` downloads its density from
``objects`` in a worker process, without a key. ``ingest.sources.catalog``, ``ingest.dry_run`` and
``ecdreg.ingestion`` import it.
"""
