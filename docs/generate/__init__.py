"""Generated references: the pages of ``docs`` that are made from the code and the database.

``python -m docs.generate`` writes them; the tests compare them.
"""
