"""Texts: descriptions by robocrystallographer and the text levels derived from them.

Only this package imports robocrystallographer; it imports ``registry`` only.
The rest of ``ingest`` and ``ecdreg`` may import it.
"""
