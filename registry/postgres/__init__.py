"""PostgreSQL: the embedded server, connections, the schema and its SQL surface, and roles.

It contains nothing about single crystals or models. ``registry.database``, ``registry.search`` and the commands
``ecdreg db`` and ``ecdreg bench`` import it.
"""
