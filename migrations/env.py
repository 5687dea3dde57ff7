"""Runs the migrations on the connection that its caller brings.

The library, the tests and the command line share this one way: ``registry.database`` puts
an open connection into ``config.attributes``, and owns the transaction. Called by the
program ``alembic`` itself, which developers use to write a new revision, the database of
the settings is taken.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from registry.models import Base


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
elif (given := context.config.attributes.get("connection")) is not None:
    _run(given)
else:
    from registry.database import connect

    with connect(check_schema=False).begin() as own:
        _run(own)
