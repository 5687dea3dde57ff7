"""Figures: each module reads one figure's data from the registry and draws it.

``ecdreg`` and ``cli`` import it; matplotlib is imported only inside functions that draw.
"""
