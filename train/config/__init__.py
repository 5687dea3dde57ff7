"""Configurations of models: their types, their defaults, and their files.

It imports nothing else of ``train``, so that every other package of ``train`` may import it.
"""
