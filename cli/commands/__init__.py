"""Commands: one module for each command group, loaded when the command is called.

``cli.main`` loads them by name; they import ``ecdreg`` inside functions.
"""
