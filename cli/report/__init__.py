"""The HTML report of a model: what the registry knows about it, drawn on one page.

:mod:`cli.report.content` reads it from the database, :mod:`cli.report.figures` draws it
(the only module that imports matplotlib), :mod:`cli.report.page` writes the HTML. Import
those where they are needed: this package itself costs nothing.
"""
