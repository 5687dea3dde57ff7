"""Schema of the registry's database: its state, upgrades and downgrades.

The schema has two parts that one query checks together: the tables, with a revision that alembic stores, and the SQL
surface (:mod:`registry.postgres.surface`), with a checksum that the database function ``ecdreg_surface()`` contains.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

import migrations
from registry.errors import ConfigurationError, SchemaBehindError, UnsuitableServerError
from registry.postgres.connections import connection_errors, masked_url
from registry.postgres.requirements import (
    check_server,
    check_versions,
    ensure_vector,
    may_create_vector,
    missing_vector_message,
)
from registry.postgres.roles import granted_roles, renew_grants
from registry.postgres.surface import create_surface, drop_surface, surface_sha256
from registry.properties import read_added_properties, sync_properties

__all__ = ["SchemaStatus", "downgrade", "require_schema", "revisions", "schema_change", "schema_status", "upgrade"]

LOCK_SECONDS = 30
UPGRADE_LOCK = 0x6563_6472_6567  # "ecdreg"; of two concurrent upgrades, one waits

State = Literal["current", "empty", "behind", "ahead"]

logger = logging.getLogger("registry")


@dataclass(frozen=True)
class SchemaStatus:
    """Schema of a database, compared with the schema that this version of ecdreg needs."""

    state: State
    """``empty``: the database has no schema; ``ahead``: a newer ecdreg created it."""
    revision: str | None
    """Revision of the tables; None if there are none."""
    head: str
    """Revision that the code needs."""
    surface_current: bool
    """Whether the views and functions are those of this version."""
    server_version: str
    vector_version: str | None
    """Version of the extension ``vector``; None if this database does not have it."""


def schema_status(engine: Engine) -> SchemaStatus:
    """Compare the schema of a database with the code; changes nothing.

    Raises
    ------
    DatabaseUnreachableError
        If no server answers.
    """
    with connection_errors(engine), engine.connect() as connection:
        return _status(connection)


def require_schema(engine: Engine, *, upgrade_allowed: bool) -> None:
    """Check that the schema is current; upgrade it if that is allowed and necessary.

    Parameters
    ----------
    engine
        The database.
    upgrade_allowed
        Whether an old schema is upgraded; otherwise it raises.

    Raises
    ------
    DatabaseUnreachableError
        If no server answers.
    UnsuitableServerError
        If the server or its extension ``vector`` is too old, or the extension is missing.
    SchemaBehindError
        If the schema is newer than the code, or older and an upgrade is not allowed.
    """
    status = schema_status(engine)
    if status.state == "ahead":
        raise SchemaBehindError(_ahead_message(status.revision))
    if status.state == "current" and status.vector_version is not None:
        if not upgrade_allowed:
            check_versions(status.server_version, status.vector_version)
        return
    if upgrade_allowed:
        _upgrade(engine, even_if_current=False)
        return
    with engine.connect() as connection:
        check_server(connection)
        if status.vector_version is None and not may_create_vector(connection):
            raise UnsuitableServerError(missing_vector_message(connection))
    found = (
        "no schema yet" if status.state == "empty" else f"schema {status.revision}, which is older than {status.head}"
    )
    if status.revision == status.head:
        found = "views and functions of another version"
    raise SchemaBehindError(f"the database {masked_url(engine.url)} has {found}; run `ecdreg db upgrade`")


def upgrade(engine: Engine) -> None:
    """Upgrade the schema to the revision of the code, in one transaction; rows are kept.

    The SQL surface is created again and the tables that describe properties are updated, also if the revision is
    already current: a user may have dropped a view.

    Raises
    ------
    UnsuitableServerError
        If the server is too old, or pgvector is missing and this role may not create it.
    SchemaBehindError
        If a newer ecdreg created the schema, or other sessions hold locks on it for a long time.
    ConfigurationError
        If a view of the user depends on one of the registry.
    """
    _upgrade(engine, even_if_current=True)


def downgrade(engine: Engine, revision: str) -> None:
    """Return the tables to an earlier revision; ``base`` removes them all, with their rows.

    The SQL surface is removed, too: the code of that revision creates its own.

    Raises
    ------
    ConfigurationError
        If there is no such revision.
    """
    if revision != "base" and revision not in revisions():
        raise ConfigurationError(f"no schema revision {revision!r}; there are: base, {', '.join(revisions())}")
    with schema_change(engine) as connection:
        drop_surface(connection)
        _migrate(connection, "downgrade", revision)
    logger.info("downgraded the schema of %s to revision %s", masked_url(engine.url), revision)


@contextmanager
def schema_change(engine: Engine) -> Iterator[Connection]:
    """A transaction that changes the schema: one at a time, and with a limit on the wait for locks.

    Raises
    ------
    SchemaBehindError
        If other sessions hold locks on the schema for too long.
    """
    try:
        with connection_errors(engine), engine.begin() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
            yield connection
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != "55P03":
            raise
        raise SchemaBehindError(
            f"the schema of {masked_url(engine.url)} is in use by other sessions and could not be changed within "
            f"{LOCK_SECONDS} s; end them, then run `ecdreg db upgrade`"
        ) from error


def revisions() -> list[str]:
    """Revisions in their order, from the names of their files. The import of alembic would take 0.2 s."""
    folder = Path(next(iter(migrations.__path__))) / "versions"
    return sorted(path.name.split("_")[0] for path in folder.glob("[0-9]*_*.py"))


def _status(connection: Connection) -> SchemaStatus:
    server_version, vector_version, surface, has_tables = connection.execute(
        text(
            "SELECT current_setting('server_version'),"
            " (SELECT extversion FROM pg_extension WHERE extname = 'vector'),"
            " (SELECT prosrc FROM pg_proc WHERE oid = to_regprocedure('ecdreg_surface()')),"
            " to_regclass('alembic_version') IS NOT NULL"
        )
    ).one()
    revision = connection.scalar(text("SELECT version_num FROM alembic_version")) if has_tables else None
    known = revisions()
    surface_current = (
        surface is not None and revision == known[-1] and surface_sha256(read_added_properties(connection)) in surface
    )
    state: State
    if revision is None:
        state = "empty"
    elif revision not in known:
        state = "ahead"
    else:
        state = "current" if revision == known[-1] and surface_current else "behind"
    return SchemaStatus(
        state=state,
        revision=revision,
        head=known[-1],
        surface_current=surface_current,
        server_version=server_version.split()[0],
        vector_version=vector_version,
    )


def _upgrade(engine: Engine, *, even_if_current: bool) -> None:
    with schema_change(engine) as connection:
        check_server(connection)
        ensure_vector(connection)
        status = _status(connection)
        if status.state == "ahead":
            raise SchemaBehindError(_ahead_message(status.revision))
        if status.state == "current" and not even_if_current:
            return  # another process has upgraded it
        roles = granted_roles(connection)
        drop_surface(connection)
        _migrate(connection, "upgrade", "head")
        create_surface(connection)
        sync_properties(connection)
        renew_grants(connection, roles)
    logger.info(
        "upgraded the schema of %s from revision %s to %s", masked_url(engine.url), status.revision, status.head
    )


def _ahead_message(revision: str | None) -> str:
    return f"the schema has revision {revision}, but this ecdreg supports at most {revisions()[-1]}; update ecdreg"


def _migrate(connection: Connection, direction: Literal["upgrade", "downgrade"], revision: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(next(iter(migrations.__path__)))).replace("%", "%%"))
    config.attributes["connection"] = connection
    getattr(command, direction)(config, revision)
