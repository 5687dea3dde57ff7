"""Database roles with read access or write access to the registry.

The group roles ``ecdreg_reader`` and ``ecdreg_writer`` have the privileges; the roles of users become their
members. Migrations neither create nor drop roles. They renew the privileges of the two group roles if these were
granted before, because each upgrade creates the views and functions again.

A reader may read every table, view and function of the registry, but not other tables of the same database. A
writer may also change rows, but not the schema.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from registry.errors import ConfigurationError, DatabaseError
from registry.postgres.surface import SURFACE_OBJECTS

__all__ = ["READER", "WRITER", "grant", "granted_roles", "renew_grants"]

READER = "ecdreg_reader"
"""Role whose members read."""
WRITER = "ecdreg_writer"
"""Role whose members read and write."""

_LARGE_OBJECTS = (
    "lo_creat(integer)",
    "lo_create(oid)",
    "lo_from_bytea(oid, bytea)",
    "lo_put(oid, bigint, bytea)",
    "lowrite(integer, bytea)",
    "lo_truncate(integer, integer)",
    "lo_truncate64(integer, bigint)",
)
"""Functions that create or write large objects."""

_PRIVILEGES: dict[str, str] = {READER: "SELECT", WRITER: "SELECT, INSERT, UPDATE, DELETE"}


def grant(
    engine: Engine, kind: Literal["reader", "writer"], name: str | None = None, *, only_registry: bool = False
) -> bool:
    """Grant a role read access, or read and write access, to the registry.

    Parameters
    ----------
    kind
        ``reader`` or ``writer``.
    name
        The role. If it does not exist, it is created with LOGIN and without a password. None: only create the group
        role.
    only_registry
        Whether the database contains only the registry, like the embedded one. If so, the privileges that every role
        has by default, temporary tables and large objects, are revoked from PUBLIC.

    Returns
    -------
    bool
        Whether the role was created.

    Raises
    ------
    ConfigurationError
        If the name cannot be that of a role, or the role already has more privileges.
    DatabaseError
        If this role may not create or grant roles; the message has the statements for an administrator.
    """
    group = READER if kind == "reader" else WRITER
    if name is not None and (not name.strip() or "\x00" in name or len(name.encode()) > 63 or name.startswith("pg_")):
        raise ConfigurationError(f"{name!r} cannot be the name of a role; give 1 to 63 bytes, not starting with pg_")
    quoted = _quoted(name or group)
    statements = f"CREATE ROLE {group} NOLOGIN" + ("" if name in (None, group) else f"; GRANT {group} TO {quoted}")
    try:
        with engine.begin() as connection:
            created = _ensure_role(connection, group, "NOLOGIN")
            _grant_privileges(connection, group)
            if only_registry:
                database = _quoted(str(connection.scalar(text("SELECT current_database()"))))
                _run(connection, f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
                # Large objects belong to no table: by default every role may create and write them.
                _run(connection, f"REVOKE EXECUTE ON FUNCTION {', '.join(_LARGE_OBJECTS)} FROM PUBLIC")
                if kind == "writer":
                    _run(connection, f"GRANT TEMPORARY ON DATABASE {database} TO {group}")
            if name is not None and name != group:
                _refuse_privileged(connection, name, kind)
                created = _ensure_role(connection, name, "LOGIN")
                _run(connection, f"GRANT {group} TO {quoted}")
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != "42501":
            raise
        raise DatabaseError(
            f"this role may not create or grant roles; let an administrator run `{statements}`, then run this again"
        ) from error
    return created


def renew_grants(connection: Connection, roles: list[str]) -> None:
    """Grant group roles their privileges again, after an upgrade has created the views and functions.

    Parameters
    ----------
    connection
        A connection in the transaction of the upgrade.
    roles
        Group roles with privileges before the upgrade; see :func:`granted_roles`.
    """
    for role in roles:
        _grant_privileges(connection, role)


def granted_roles(connection: Connection) -> list[str]:
    """Group roles of the registry that have privileges in this database."""
    return list(
        connection.scalars(
            text(
                "SELECT DISTINCT r.rolname::text FROM pg_class c, aclexplode(c.relacl) a"
                " JOIN pg_roles r ON r.oid = a.grantee"
                " WHERE c.oid = to_regclass('crystals') AND r.rolname = ANY (:names) ORDER BY 1"
            ),
            {"names": [READER, WRITER]},
        )
    )


def _grant_privileges(connection: Connection, role: str) -> None:
    from registry.models import Base

    schema = connection.scalar(text("SELECT relnamespace::regnamespace FROM pg_class WHERE oid = 'crystals'::regclass"))
    tables = [table.name for table in Base.metadata.sorted_tables]
    views = [name.removeprefix("VIEW ") for name in SURFACE_OBJECTS if name.startswith("VIEW ")]
    functions = [name.removeprefix("FUNCTION ") for name in SURFACE_OBJECTS if name.startswith("FUNCTION ")]
    for statement in (
        f"GRANT USAGE ON SCHEMA {schema} TO {role}",
        f"GRANT {_PRIVILEGES[role]} ON {', '.join(tables)} TO {role}",
        f"GRANT SELECT ON alembic_version, {', '.join(views)} TO {role}",
        f"GRANT EXECUTE ON FUNCTION ecdreg_surface(), {', '.join(functions)} TO {role}",
    ):
        _run(connection, statement)


def _ensure_role(connection: Connection, name: str, login: str) -> bool:
    if connection.scalar(text("SELECT true FROM pg_roles WHERE rolname = :name"), {"name": name}):
        return False
    try:
        with connection.begin_nested():
            _run(connection, f"CREATE ROLE {_quoted(name)} {login}")
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in (
            "42710",
            "23505",
        ):  # another process created it
            raise
        return False
    return True


def _refuse_privileged(connection: Connection, name: str, kind: str) -> None:
    """Raise for a superuser or the owner of the tables, who keep more privileges than a reader or writer has."""
    more = connection.scalar(
        text(
            "SELECT CASE WHEN r.rolsuper THEN 'is a superuser'"
            " WHEN pg_has_role(r.oid, c.relowner, 'USAGE') THEN 'owns the registry' END"
            " FROM pg_roles r, pg_class c WHERE r.rolname = :name AND c.oid = 'crystals'::regclass"
        ),
        {"name": name},
    )
    if more is not None:
        raise ConfigurationError(f"the role {name!r} {more} and has all privileges; choose another role as a {kind}")


def _quoted(name: str) -> str:
    # SQLAlchemy's own function also doubles percent signs, for statements with parameters.
    return '"' + name.replace('"', '""') + '"'


def _run(connection: Connection, sql: str) -> None:
    # Without parameters, % and : are not placeholders.
    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
