"""The database of the registry: status, schema, embedded server, and access for other roles and programs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Engine

from registry.database import connect, connection_url
from registry.errors import ConfigurationError
from registry.postgres import embedded, schema
from registry.postgres.connections import masked_url
from registry.postgres.embedded import EmbeddedServer
from registry.postgres.roles import READER, WRITER
from registry.postgres.roles import grant as grant_role
from registry.settings import Settings

__all__ = [
    "DatabaseStatus",
    "Grant",
    "Psql",
    "SchemaChange",
    "connect",
    "database_exists",
    "database_status",
    "database_url",
    "downgrade_database",
    "grant_access",
    "psql",
    "start_server",
    "stop_server",
    "upgrade_database",
]


@dataclass(frozen=True)
class DatabaseStatus:
    """State of the database; None where it is not known, for instance of a server that does not run."""

    kind: Literal["embedded", "own server"]
    data: str | None
    """Data directory of the embedded server."""
    running: bool
    pid: int | None
    socket: str | None
    """Folder of the unix socket of the embedded server."""
    log: str | None
    url: str | None
    """URL without a password."""
    postgresql: str | None
    """Version of the server."""
    pgvector: str | None
    """Version of the extension; None where the database has none."""
    schema: str | None
    """``current``, ``empty``, ``behind`` or ``ahead`` of this version of ecdreg."""
    revision: str | None
    """Revision of the tables."""
    head: str | None
    """Revision that this version of ecdreg needs."""
    advice: tuple[str, ...]
    """Remedy where the database cannot be used as it is."""


@dataclass(frozen=True)
class SchemaChange:
    """Result of an upgrade."""

    revision: str | None
    changed: bool
    """False where the schema was current before."""


@dataclass(frozen=True)
class Grant:
    """Access that a role was granted."""

    role: str
    group: str
    """Group role with the privileges."""
    created: bool
    """Whether the role was created, without a password."""


@dataclass(frozen=True)
class Psql:
    """Command line and environment of the bundled psql, connected to the database."""

    arguments: tuple[str, ...]
    environment: dict[str, str]


def database_exists(settings: Settings) -> bool:
    """Whether there is a database to connect to: a server of the user's own, or an embedded one that was made."""
    return not settings.embedded or (settings.postgres_data / "PG_VERSION").exists()


def database_status(settings: Settings) -> DatabaseStatus:
    """Read the state of the database; nothing is started or changed.

    Parameters
    ----------
    settings
        Which database.

    Raises
    ------
    DatabaseUnreachableError, UnsuitableServerError
        As :func:`registry.database.connect`.
    """
    found: dict[str, object] = dict.fromkeys(DatabaseStatus.__dataclass_fields__)
    if settings.embedded:
        state = embedded.status(settings.postgres_data)
        found |= {
            "kind": "embedded",
            "data": str(state.data),
            "running": state.running,
            "pid": state.pid,
            "socket": state.host,
            "log": str(state.log) if state.initialised else None,
        }
        if not state.running:
            absent = "not running" if state.initialised else "not made yet"
            start = f"{absent}; the next command that needs it starts it, as `ecdreg db start` does"
            return DatabaseStatus(**found | {"advice": (start,)})  # type: ignore[arg-type]
    else:
        found |= {"kind": "own server", "running": True}
    engine = connect(settings, check_schema=False)
    try:
        found_schema = schema.schema_status(engine)
    finally:
        engine.dispose()
    found |= {
        "url": database_url(settings),
        "postgresql": found_schema.server_version,
        "pgvector": found_schema.vector_version,
        "schema": found_schema.state,
        "revision": found_schema.revision,
        "head": found_schema.head,
    }
    advice = []
    if found_schema.vector_version is None and not settings.embedded:
        advice.append("the database has no extension `vector`; an administrator creates it if your role may not")
    if found_schema.state == "ahead":
        advice.append("the schema is of a newer ecdreg; update ecdreg")
    elif found_schema.state != "current":
        advice.append("run `ecdreg db upgrade`")
    return DatabaseStatus(**found | {"advice": tuple(advice)})  # type: ignore[arg-type]


def database_url(settings: Settings) -> str:
    """URL of the database for other programs, with a password shown as ``***``."""
    return masked_url(connection_url(settings))


def upgrade_database(engine: Engine) -> SchemaChange:
    """Bring the schema to that of this version; rows stay.

    Raises
    ------
    SchemaBehindError, DatabaseError
        As :func:`registry.postgres.schema.upgrade`.
    """
    before = schema.schema_status(engine)
    schema.upgrade(engine)
    return SchemaChange(schema.schema_status(engine).revision, changed=before.state != "current")


def downgrade_database(engine: Engine, revision: str) -> None:
    """Return the schema to an earlier revision; rows that only the newer one can hold are lost.

    Parameters
    ----------
    engine
        Made without a check of the schema.
    revision
        A revision, or ``base``, which removes every table.

    Raises
    ------
    ConfigurationError, DatabaseError
        As :func:`registry.postgres.schema.downgrade`.
    """
    schema.downgrade(engine, revision)


def start_server(settings: Settings) -> EmbeddedServer | None:
    """Start the embedded server; None for a server of the user's own, which only has to answer.

    Raises
    ------
    DatabaseUnreachableError, UnsuitableServerError, SchemaBehindError
        As :func:`registry.database.connect`.
    """
    connect(settings).dispose()
    return embedded.start(settings.postgres_data) if settings.embedded else None


def stop_server(settings: Settings) -> bool:
    """Stop the embedded server; return whether it was running.

    Raises
    ------
    ConfigurationError
        If the database is that of a server of the user's own.
    """
    if not settings.embedded:
        raise ConfigurationError(
            "ECDREG_DATABASE_URL names a server of your own; only the embedded one is stopped here"
        )
    return embedded.stop(settings.postgres_data)


def grant_access(
    engine: Engine, settings: Settings, kind: Literal["reader", "writer"], name: str | None = None
) -> Grant:
    """Let a role read, or read and write, the registry.

    Parameters
    ----------
    engine
        Of the registry.
    settings
        Whether the database is the embedded one, which contains nothing else.
    kind
        ``reader`` or ``writer``.
    name
        Role, created where it is missing; None: only the group role is created.

    Raises
    ------
    ConfigurationError, DatabaseError
        As :func:`registry.postgres.roles.grant`.
    """
    group = READER if kind == "reader" else WRITER
    created = grant_role(engine, kind, name, only_registry=settings.embedded)
    return Grant(name or group, group, created)


def psql(settings: Settings, *, commands: Sequence[str] = (), csv: bool = False) -> Psql:
    """Command line of the bundled psql on the database.

    Parameters
    ----------
    settings
        Which database; its server must be running.
    commands
        SQL to run instead of an interactive session.
    csv
        Print comma-separated values.

    Raises
    ------
    ConfigurationError
        If the URL of the database cannot be used.
    """
    target = connection_url(settings).set(drivername="postgresql")
    environment = os.environ.copy()
    if target.password is not None:  # not on the command line, which every user of the machine can read
        environment["PGPASSWORD"] = str(target.password)
        target = target._replace(password=None)
    arguments = [str(embedded.binary("psql")), "--no-psqlrc", "-v", "ON_ERROR_STOP=1"]
    # Messages of the registry's own functions are complete without their context.
    arguments += ["-v", "SHOW_CONTEXT=never", "-d", target.render_as_string(hide_password=False)]
    if csv:
        arguments.append("--csv")
    for sql in commands:
        arguments += ["-c", sql]
    return Psql(tuple(arguments), environment)
