"""Reports: self-contained HTML pages about a model, or the explanation of a prediction.

``content`` reads the registry, ``ecdreg.figures`` draws, the Jinja2 templates in ``templates`` make the page. ``cli``,
``ecdreg.registry`` and ``ecdreg.explanation`` import it.
"""
