"""Models: training and tuning; lists, cards, scores and comparisons; reference models.

``ecdreg.registry``, ``ecdreg.report``, ``ecdreg.figures`` and ``cli`` import it.
"""
