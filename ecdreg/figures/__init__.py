"""Figures with matplotlib: each module reads the data of its figures from the registry and draws them.

A function ``..._figure`` returns a matplotlib figure; ``files`` writes it or puts it into a page. ``cli``,
``ecdreg.report``, ``ecdreg.reproduction`` and ``ecdreg.registry`` import it, only inside functions, because matplotlib
takes a second to import.
"""
