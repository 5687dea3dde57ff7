"""Who may do what: roles that only read the registry, and roles that write it.

Two roles of the registry's own, ``ecdreg_reader`` and ``ecdreg_writer``, hold the rights; people's roles
are made members of them. Migrations neither make nor drop roles; they renew the rights of these two
where they were given, because views and functions are made anew at each upgrade.

A reader may look at every table, view and function of the registry and change nothing; other tables of
the same database are none of its business. A writer may also change rows, but not the schema.
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
"""What makes or fills large objects."""

_RIGHTS: dict[str, str] = {READER: "SELECT", WRITER: "SELECT, INSERT, UPDATE, DELETE"}


def grant(
    engine: Engine, kind: Literal["reader", "writer"], name: str | None = None, *, only_registry: bool = False
) -> bool:
    """Let a role read, or read and write, the registry.

    Parameters
    ----------
    kind
        ``reader`` or ``writer``.
    name
        The role; made, with LOGIN and no password, where it is missing. None: only make the registry's own role.
    only_registry
        The database holds nothing but the registry, as the embedded one: nobody else needs temporary tables in it,
        which every role may make otherwise.

    Returns
    -------
    bool
        Whether the role was made.

    Raises
    ------
    ConfigurationError
        If the name cannot be that of a role, or that role may do more already.
    DatabaseError
        If this role may not make roles, or not grant them; the message has the statements for an administrator.
    """
    group = READER if kind == "reader" else WRITER
    if name is not None and (not name.strip() or "\x00" in name or len(name.encode()) > 63 or name.startswith("pg_")):
        raise ConfigurationError(f"{name!r} cannot be the name of a role; give 1 to 63 bytes, not starting with pg_")
    quoted = _quoted(name or group)
    by_hand = f"CREATE ROLE {group} NOLOGIN" + ("" if name in (None, group) else f"; GRANT {group} TO {quoted}")
    try:
        with engine.begin() as connection:
            made = _ensure_role(connection, group, "NOLOGIN")
            _give(connection, group)
            if only_registry:
                database = _quoted(str(connection.scalar(text("SELECT current_database()"))))
                _run(connection, f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
                # Large objects are nobody's table: every role may make and fill them, but for this.
                _run(connection, f"REVOKE EXECUTE ON FUNCTION {', '.join(_LARGE_OBJECTS)} FROM PUBLIC")
                if kind == "writer":
                    _run(connection, f"GRANT TEMPORARY ON DATABASE {database} TO {group}")
            if name is not None and name != group:
                _refuse_more(connection, name, kind)
                made = _ensure_role(connection, name, "LOGIN")
                _run(connection, f"GRANT {group} TO {quoted}")
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != "42501":
            raise
        raise DatabaseError(
            f"this role may not make or grant roles; let an administrator run `{by_hand}`, then repeat this"
        ) from error
    return made


def renew_grants(connection: Connection, roles: list[str]) -> None:
    """Give roles of the registry's own their rights again, after its views and functions were made anew.

    Parameters
    ----------
    connection
        In the transaction of the upgrade.
    roles
        Those that had rights before; see :func:`granted_roles`.
    """
    for role in roles:
        _give(connection, role)


def granted_roles(connection: Connection) -> list[str]:
    """Which of the registry's roles have rights in this database."""
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


def _give(connection: Connection, role: str) -> None:
    from registry.models import Base

    schema = connection.scalar(text("SELECT relnamespace::regnamespace FROM pg_class WHERE oid = 'crystals'::regclass"))
    tables = [table.name for table in Base.metadata.sorted_tables]
    views = [name.removeprefix("VIEW ") for name in SURFACE_OBJECTS if name.startswith("VIEW ")]
    functions = [name.removeprefix("FUNCTION ") for name in SURFACE_OBJECTS if name.startswith("FUNCTION ")]
    for statement in (
        f"GRANT USAGE ON SCHEMA {schema} TO {role}",
        f"GRANT {_RIGHTS[role]} ON {', '.join(tables)} TO {role}",
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
        if getattr(error.orig, "sqlstate", None) not in ("42710", "23505"):  # another process was faster
            raise
        return False
    return True


def _refuse_more(connection: Connection, name: str, kind: str) -> None:
    """A superuser or the owner of the tables does not become a reader by being called one."""
    more = connection.scalar(
        text(
            "SELECT CASE WHEN r.rolsuper THEN 'is a superuser'"
            " WHEN pg_has_role(r.oid, c.relowner, 'USAGE') THEN 'owns the registry' END"
            " FROM pg_roles r, pg_class c WHERE r.rolname = :name AND c.oid = 'crystals'::regclass"
        ),
        {"name": name},
    )
    if more is not None:
        raise ConfigurationError(f"the role {name!r} {more} and may do everything; name another as a {kind}")


def _quoted(name: str) -> str:
    # SQLAlchemy's own doubles a percent sign too, for statements with parameters.
    return '"' + name.replace('"', '""') + '"'


def _run(connection: Connection, sql: str) -> None:
    # Without parameters % and : are no placeholders.
    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
