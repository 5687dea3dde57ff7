"""Migrations: the Alembic environment ``env``, and the revisions of the schema in ``versions``.

A released revision does not change. The environment imports ``registry``; ``registry.postgres.schema`` imports the
package, to find its folder.
"""
