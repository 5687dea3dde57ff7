"""Analysis of trained models: attribution, comparison, retrieval, and projections.

It fits no model that is kept. ``train.paper`` and ``ecdreg`` import it.
"""
