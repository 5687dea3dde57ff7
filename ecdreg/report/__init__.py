"""Reports: self-contained HTML pages about a model, a prediction or a reproduction.

``content`` reads the registry, ``figures`` draws, templates make the page. ``cli`` and the web import it.
"""
