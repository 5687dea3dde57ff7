"""PostgreSQL: the embedded server, connections, the schema and its SQL surface, and roles.

It reads no crystals and no models. ``registry.database``, ``registry.property_store``, ``ecdreg.database`` and
``ecdreg.benchmarks`` import it.
"""
