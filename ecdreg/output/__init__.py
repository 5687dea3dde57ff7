"""Output of the library: HTML from Jinja2 templates, and files that are written as a whole or not at all.

``ecdreg.figures``, ``ecdreg.report``, ``ecdreg.reproduction`` and ``ecdreg.explanation`` import it.
"""
