"""Search: similar crystals by vector, text and property, filters, fusion, and indexes.

It reads tables and imports nothing of ``train`` or ``ingest``. ``train``, ``ecdreg`` and
``registry.property_store`` import it.
"""
