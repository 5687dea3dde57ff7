"""Texts: robocrystallographer's descriptions and the text levels that are cut from them.

Only this package imports robocrystallographer. ``ingest`` and ``ecdreg`` import it.
"""
