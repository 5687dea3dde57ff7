"""Reproduction of the paper: its experiments in this registry, and the report on them.

It imports ``train.paper``, ``ecdreg.figures``, ``ecdreg.output`` and ``ecdreg.notes``. ``ecdreg.registry`` and ``cli``
import it.
"""
