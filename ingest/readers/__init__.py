"""Readers: one module per format, each from a file to checked objects in e/Å^3 and Å.

``densities`` and ``structures`` choose the reader by the file's name; ``images`` reads slices
that were rendered elsewhere. What cannot be used raises :class:`registry.errors.InputError`
with the file's name in one line.
"""
