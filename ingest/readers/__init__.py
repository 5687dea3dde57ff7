"""Readers: one module per file format, with results in Å and e/Å^3.

``densities`` and ``structures`` select the reader by the file name; ``images`` reads rendered slices. They import
``densities.checks`` and ``registry``. The rest of ``ingest`` and ``ecdreg`` may import them.
"""
