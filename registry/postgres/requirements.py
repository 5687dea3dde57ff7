"""Requirements on the PostgreSQL server: its version, and the extension pgvector."""

from __future__ import annotations

import re
import warnings

from sqlalchemy import Connection, text

from registry.errors import UnsuitableServerError

__all__ = ["check_server", "check_versions", "ensure_vector", "may_create_vector", "missing_vector_message"]

MIN_POSTGRES = 15  # NULLS NOT DISTINCT
MIN_PGVECTOR = (0, 8, 0)  # iterative scans
GOOD_PGVECTOR = (0, 8, 4)  # fixes of vacuum, and of a CVE (0.8.2)


def check_server(connection: Connection) -> None:
    """Check the versions of a server and of its extension ``vector``, if the database has it.

    Raises
    ------
    UnsuitableServerError
        If one of them is too old.
    """
    server = connection.scalar(text("SELECT current_setting('server_version')"))
    vector = connection.scalar(text("SELECT extversion FROM pg_extension WHERE extname = 'vector'"))
    check_versions(str(server), vector)


def check_versions(server: str, vector: str | None) -> None:
    """Check version numbers; warn about a pgvector with known faults.

    Parameters
    ----------
    server
        Version of PostgreSQL, such as ``17.2 (Debian 17.2-1)``.
    vector
        Version of pgvector; None if the database does not have the extension.

    Raises
    ------
    UnsuitableServerError
        If one of them is too old.
    """
    if _numbers(server)[0] < MIN_POSTGRES:
        raise UnsuitableServerError(f"the server is PostgreSQL {server}; ecdreg needs {MIN_POSTGRES} or newer")
    if vector is None:
        return
    if _numbers(vector) < MIN_PGVECTOR:
        raise UnsuitableServerError(
            f"the server has pgvector {vector}; ecdreg needs {_dotted(MIN_PGVECTOR)} or newer: update the package, "
            "then let an administrator run `ALTER EXTENSION vector UPDATE`"
        )
    if _numbers(vector) < GOOD_PGVECTOR:
        warnings.warn(
            f"the server has pgvector {vector}; {_dotted(GOOD_PGVECTOR)} and newer fix index corruption by vacuum",
            stacklevel=2,
        )


def ensure_vector(connection: Connection) -> None:
    """Create the extension ``vector`` if the database does not have it and this role may create it.

    Raises
    ------
    UnsuitableServerError
        If the extension is missing and this role may not create it, or its version is too old.
    """
    if connection.scalar(text("SELECT true FROM pg_extension WHERE extname = 'vector'")):
        return
    if not may_create_vector(connection):
        raise UnsuitableServerError(missing_vector_message(connection))
    connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
    check_server(connection)


def may_create_vector(connection: Connection) -> bool:
    """Whether pgvector is installed on the server and this role may create the extension in this database."""
    return bool(
        connection.scalar(
            text(
                "SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) OR"
                " (v.trusted AND has_database_privilege(current_database(), 'CREATE'))"
                " FROM pg_available_extensions e"
                " JOIN pg_available_extension_versions v ON v.name = e.name AND v.version = e.default_version"
                " WHERE e.name = 'vector'"
            )
        )
    )


def missing_vector_message(connection: Connection) -> str:
    """Message for a database without the extension, with the steps for an administrator."""
    database = connection.scalar(text("SELECT current_database()"))
    installed = connection.scalar(text("SELECT true FROM pg_available_extensions WHERE name = 'vector'"))
    first = "" if installed else "install pgvector 0.8 or newer on the server, then "
    return (
        f"the database {database!r} has no extension `vector`: {first}let an administrator run "
        "`CREATE EXTENSION vector` in it"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
