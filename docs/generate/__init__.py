"""Generated references: the pages ``docs/cli.md``, ``docs/schema.md`` and ``docs/sql.md``, from the code.

``python -m docs.generate`` writes them. Only ``tests/docs`` imports this package, and compares the pages.
"""
