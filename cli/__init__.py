"""The command line: it parses arguments, calls one function of ``ecdreg``, and prints.

Nothing imports it.
"""
