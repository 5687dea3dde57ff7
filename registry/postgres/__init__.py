"""PostgreSQL: the embedded server, checks of its host, roles, and the SQL surface.

It knows no crystal and no model. ``registry.database`` and the commands of ``ecdreg db`` import it.
"""
