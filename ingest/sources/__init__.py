"""Sources of crystals: dataset folders, the bundled sample and the Materials Project.

``base`` has the protocols, ``catalog`` the named sources. It imports ``readers``, ``slices`` and
``registry``. ``free_atoms``, ``preparation``, the modules at the top of ``ingest``, and ``ecdreg`` import it.
"""

from __future__ import annotations

from ingest.sources.base import CrystalSource, RawCrystal, SourceRecord
from ingest.sources.catalog import SOURCES, open_source

__all__ = ["SOURCES", "CrystalSource", "RawCrystal", "SourceRecord", "open_source"]
