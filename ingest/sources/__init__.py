"""Sources of crystals: dataset folders, the bundled sample and the Materials Project.

``base`` has the protocols, ``catalog`` the named sources. It imports ``readers`` and ``registry``.
The rest of ``ingest``, ``ecdreg`` and ``cli`` may import it; readers, densities and slices may not.
"""

from __future__ import annotations

from ingest.sources.base import CrystalSource, RawCrystal, SourceRecord
from ingest.sources.catalog import SOURCES, open_source

__all__ = ["SOURCES", "CrystalSource", "RawCrystal", "SourceRecord", "open_source"]
