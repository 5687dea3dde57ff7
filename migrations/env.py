"""Environment of Alembic: it runs the migrations on a connection that the caller has opened.

The library, the tests and the command line use it in the same way: ``registry.postgres.schema`` puts an open
connection into ``config.attributes`` and owns the transaction. The program ``alembic``, with which developers write a
new revision, gives no connection; the environment then connects to the database of the settings.
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
