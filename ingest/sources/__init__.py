"""Where crystals come from: one module per source, and the catalog that names them."""

from __future__ import annotations

from ingest.sources.base import SOURCES, CrystalSource, RawCrystal, SourceRecord, load_sources, open_source

__all__ = ["SOURCES", "CrystalSource", "RawCrystal", "SourceRecord", "load_sources", "open_source"]
