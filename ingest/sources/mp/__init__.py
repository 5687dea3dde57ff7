"""The Materials Project: structures, properties, densities and texts, politely and resumably.

:mod:`~ingest.sources.mp.source` lists the materials through the project's own client
(:mod:`~ingest.sources.mp.client`); a record (:mod:`~ingest.sources.mp.records`) fetches the
density object of its material (:mod:`~ingest.sources.mp.objects`) when a worker process reads it,
and needs no key for that.
"""

from __future__ import annotations
