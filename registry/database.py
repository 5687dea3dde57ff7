"""The engine, the transaction, and the schema's revision.

:func:`connect` gives an engine on the embedded database, which it starts and upgrades by
itself, or on a server of the user's own, which it only checks. :func:`session_scope` owns
the transaction; library functions take its session and never commit.

The schema has two parts that are checked together in one query: the tables, whose revision
alembic keeps, and the SQL surface on top of them (:mod:`registry.postgres.surface`), whose checksum is
kept by the database function ``ecdreg_surface()``.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.orm import Session

import migrations
from registry.errors import (
    ConfigurationError,
    DatabaseUnreachableError,
    SchemaBehindError,
    UnsuitableServerError,
)
from registry.postgres import embedded
from registry.postgres.surface import create_surface, drop_surface, surface_sha256
from registry.properties import read_added_properties, refresh_properties, sync_properties
from registry.settings import Settings

__all__ = [
    "DATABASE",
    "SchemaStatus",
    "connect",
    "connection_url",
    "downgrade",
    "masked_url",
    "schema_change",
    "schema_status",
    "session_scope",
    "upgrade",
]

DATABASE = "ecdreg"
"""Name of the database in the embedded cluster."""

MIN_POSTGRES = 15  # NULLS NOT DISTINCT
MIN_PGVECTOR = (0, 8, 0)  # iterative scans
GOOD_PGVECTOR = (0, 8, 4)  # fixes of vacuum, and of a CVE (0.8.2)
CONNECT_SECONDS = 10
LOCK_SECONDS = 30
RESTART_SECONDS = 30  # how long an embedded server that is stopped under a command is started again
UPGRADE_LOCK = 0x6563_6472_6567  # "ecdreg"; two upgrades at once wait for each other

_REFUSED = re.compile(r"FATAL:(?!\s+(the database system is|terminating connection))")
"""What starting the server again does not mend. Where nobody listens, or a server that is shutting down hangs up, the
words are libpq's own, which passes no SQLSTATE on for a connection that it could not make."""

State = Literal["current", "empty", "behind", "ahead"]


@dataclass(frozen=True)
class SchemaStatus:
    """What a database holds, compared with what this version of ecdreg needs."""

    state: State
    """``empty``: no schema yet; ``ahead``: made by a newer ecdreg."""
    revision: str | None
    """Revision of the tables; None where there are none."""
    head: str
    """Revision that the code needs."""
    surface_current: bool
    """Whether the views and functions are those of this version."""
    server_version: str
    vector_version: str | None
    """Version of the extension ``vector``; None where it is not in this database."""


def connect(settings: Settings | None = None, *, application_name: str = "ecdreg", check_schema: bool = True) -> Engine:
    """Engine on the registry's database.

    The embedded server is started where it does not run, its database made, its schema
    upgraded. A server of the user's own is checked and never changed.

    Parameters
    ----------
    settings
        Those of the environment by default.
    application_name
        How the connections are called in ``pg_stat_activity``.
    check_schema
        False: neither check nor upgrade the schema, as ``ecdreg db`` needs it.

    Raises
    ------
    ConfigurationError
        If ``ECDREG_DATABASE_URL`` is no PostgreSQL URL.
    DatabaseUnreachableError
        If no server answers, or the embedded one cannot be started.
    UnsuitableServerError
        If the server is too old, or has no pgvector or an old one.
    SchemaBehindError
        If the schema of the user's own server is behind, or any schema is ahead of the code.
    """
    settings = settings or Settings.from_environ()
    data = settings.postgres_data if settings.embedded else None
    engine = _engine(connection_url(settings), application_name, data)
    deadline = time.monotonic() + RESTART_SECONDS
    while True:
        try:
            if data is not None:
                _make_database(engine, application_name, data)
            else:
                with _reached(engine), engine.connect():
                    pass
            if check_schema:
                _check_schema(engine, upgrade_allowed=settings.embedded)
                with engine.connect() as connection:
                    refresh_properties(connection)
            return engine
        except BaseException as error:
            engine.dispose()
            # `ecdreg db stop` may come between any two of these questions: asked again, they start the server anew.
            if data is None or not _cut_off(error) or time.monotonic() > deadline:
                raise


@contextmanager
def session_scope(engine: Engine) -> Iterator[Session]:
    """A session in a transaction: committed at the end, rolled back when anything is raised.

    Its objects stay readable after the commit.
    """
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


def schema_status(engine: Engine) -> SchemaStatus:
    """Compare the schema of a database with the code; changes nothing.

    Raises
    ------
    DatabaseUnreachableError
        If no server answers.
    """
    with _reached(engine), engine.connect() as connection:
        return _status(connection)


def upgrade(engine: Engine) -> None:
    """Bring the schema to the code's revision, in one transaction; rows stay.

    Makes the SQL surface anew and refreshes the tables that describe properties, even where
    the revision is there already: somebody may have dropped a view by hand.

    Raises
    ------
    UnsuitableServerError
        If the server is too old, or pgvector is missing and may not be created by this role.
    SchemaBehindError
        If the schema was made by a newer ecdreg, or other sessions hold locks on it for long.
    ConfigurationError
        If a view of the user's own is built on one of the registry's.
    """
    _upgrade(engine, even_if_current=True)


def downgrade(engine: Engine, revision: str) -> None:
    """Take the tables back to an earlier revision; ``base`` removes them all, with their rows.

    The SQL surface goes too: the code of that revision makes its own.

    Raises
    ------
    ConfigurationError
        If there is no such revision.
    """
    if revision != "base" and revision not in _revisions():
        raise ConfigurationError(f"no schema revision {revision!r}; there are: base, {', '.join(_revisions())}")
    with schema_change(engine) as connection:
        drop_surface(connection)
        _migrate(connection, "downgrade", revision)


def connection_url(settings: Settings) -> URL:
    """SQLAlchemy URL of the registry's database; starts the embedded server where that is meant.

    Raises
    ------
    ConfigurationError
        If ``ECDREG_DATABASE_URL`` is no PostgreSQL URL; the message shows no part of it.
    DatabaseUnreachableError
        If the embedded server cannot be started.
    """
    raw = settings.database_url
    if raw is None:
        raw = embedded.start(settings.postgres_data).url(DATABASE)
    rest = re.sub(r"^postgres(ql)?(\+\w+)?://", "", raw)
    if rest == raw:
        raise ConfigurationError(
            "ECDREG_DATABASE_URL is no PostgreSQL URL; write it as postgresql://user:password@host:5432/database"
        )
    try:
        return make_url(f"postgresql+psycopg://{rest}")
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "ECDREG_DATABASE_URL cannot be parsed; write it as postgresql://user:password@host:5432/database, "
            "with special characters of the password percent-encoded"
        ) from None


def masked_url(url: URL) -> str:
    """The libpq form of a URL for a person's eyes, its password replaced by ``***``."""
    secret = {name: "***" for name in ("password", "sslpassword") if name in url.query}
    shown = url.set(drivername="postgresql").update_query_dict(secret).render_as_string(hide_password=True)
    return shown.replace("%2A%2A%2A", "***")


# -------------------------------------------------------------------------------- checks


def _engine(url: URL, application_name: str, data: Path | None = None) -> Engine:
    defaults = {"application_name": application_name, "connect_timeout": CONNECT_SECONDS}
    given = {name: value for name, value in defaults.items() if name not in url.query}
    # native_hstore would cost a query per connection; nothing here is an hstore.
    engine = create_engine(url, connect_args=given, pool_pre_ping=True, use_native_hstore=False)
    if data is not None:
        _restart_for(engine, data)
    return engine


def _restart_for(engine: Engine, data: Path) -> None:
    """Start the embedded server again wherever a new connection finds it stopped, or on its way there.

    Somebody may stop it between :func:`registry.postgres.embedded.start` and a connection, or long after, while this process
    had no connection in use.
    """

    def reach(dialect: Any, _: object, arguments: list[Any], options: dict[str, Any]) -> object:
        deadline = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                return dialect.connect(*arguments, **options)
            except dialect.loaded_dbapi.OperationalError as error:
                if _REFUSED.search(str(error)) or time.monotonic() > deadline:
                    raise
            embedded.start(data)
            time.sleep(0.02)  # it may be ready by its own account and recover from a crash

    event.listen(engine, "do_connect", reach)


def _cut_off(error: BaseException) -> bool:
    """Whether a connection was ended by the server, while it was made or later."""
    if isinstance(error, DatabaseUnreachableError) and error.__cause__ is not None:
        error = error.__cause__
    if not isinstance(error, OperationalError) or _REFUSED.search(str(error.orig)):
        return False
    return error.connection_invalidated or error.statement is None


@contextmanager
def _reached(engine: Engine) -> Iterator[None]:
    """Turn a connection that fails into :class:`DatabaseUnreachableError`."""
    try:
        yield
    except OperationalError as error:
        if error.statement is None or error.connection_invalidated:
            raise DatabaseUnreachableError(
                f"no database at {masked_url(engine.url)}: {_first_line(error)}; "
                "check that the server runs (`ecdreg db status`) and ECDREG_DATABASE_URL"
            ) from error
        raise


def _make_database(engine: Engine, application_name: str, data: Path) -> None:
    """Connect to the embedded database, made first where the cluster is new."""
    try:
        with engine.connect():
            return
    except OperationalError as error:
        if f'database "{DATABASE}" does not exist' not in str(error.orig):
            with _reached(engine):
                raise
    admin = _engine(engine.url.set(database="postgres"), application_name, data)
    try:
        with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"CREATE DATABASE {DATABASE}"))
    except DBAPIError as error:
        # Another process was faster: duplicate_database, or a unique violation in its last moment.
        if getattr(error.orig, "sqlstate", None) not in ("42P04", "23505"):
            raise
    finally:
        admin.dispose()


def _check_schema(engine: Engine, *, upgrade_allowed: bool) -> None:
    status = schema_status(engine)
    if status.state == "ahead":
        raise SchemaBehindError(_ahead(status.revision))
    if status.state == "current" and status.vector_version is not None:
        if not upgrade_allowed:
            _require_versions(status.server_version, status.vector_version)
        return
    if upgrade_allowed:
        _upgrade(engine, even_if_current=False)
        return
    with engine.connect() as connection:
        _require_server(connection)
        if status.vector_version is None and not _may_create_vector(connection):
            raise UnsuitableServerError(_no_vector(connection))
    has = "no schema yet" if status.state == "empty" else f"schema {status.revision}, an older one than {status.head}"
    if status.revision == status.head:
        has = "views and functions of another version"
    raise SchemaBehindError(f"the database {masked_url(engine.url)} has {has}; run `ecdreg db upgrade`")


def _require_server(connection: Connection) -> None:
    server = connection.scalar(text("SELECT current_setting('server_version')"))
    vector = connection.scalar(text("SELECT extversion FROM pg_extension WHERE extname = 'vector'"))
    _require_versions(str(server), vector)


def _require_versions(server: str, vector: str | None) -> None:
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


def _require_vector(connection: Connection) -> None:
    """Make sure of the extension; create it only where this role may."""
    if connection.scalar(text("SELECT true FROM pg_extension WHERE extname = 'vector'")):
        return
    if not _may_create_vector(connection):
        raise UnsuitableServerError(_no_vector(connection))
    connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
    _require_server(connection)


def _may_create_vector(connection: Connection) -> bool:
    """Whether the extension is installed on the server and this role may create it here."""
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


def _no_vector(connection: Connection) -> str:
    database = connection.scalar(text("SELECT current_database()"))
    installed = connection.scalar(text("SELECT true FROM pg_available_extensions WHERE name = 'vector'"))
    first = "" if installed else "install pgvector 0.8 or newer on the server, then "
    return (
        f"the database {database!r} has no extension `vector`: {first}let an administrator run "
        "`CREATE EXTENSION vector` in it"
    )


# ------------------------------------------------------------------------------ migrations


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
    known = _revisions()
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
        _require_server(connection)
        _require_vector(connection)
        status = _status(connection)
        if status.state == "ahead":
            raise SchemaBehindError(_ahead(status.revision))
        if status.state == "current" and not even_if_current:
            return  # another process was faster
        from registry.postgres.roles import granted_roles, renew_grants

        roles = granted_roles(connection)
        drop_surface(connection)
        _migrate(connection, "upgrade", "head")
        create_surface(connection)
        sync_properties(connection)
        renew_grants(connection, roles)


@contextmanager
def schema_change(engine: Engine) -> Iterator[Connection]:
    """A transaction that changes the schema: one at a time, and with a limit on how long it waits for locks.

    Raises
    ------
    SchemaBehindError
        If other sessions hold locks on the schema for too long.
    """
    try:
        with _reached(engine), engine.begin() as connection:
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


def _revisions() -> list[str]:
    """Revisions in their order, by the names of their files; alembic itself takes 0.2 s to import."""
    folder = Path(next(iter(migrations.__path__))) / "versions"
    return sorted(path.name.split("_")[0] for path in folder.glob("[0-9]*_*.py"))


def _ahead(revision: str | None) -> str:
    return f"the schema has revision {revision}, this ecdreg knows {_revisions()[-1]} at most; update ecdreg"


def _migrate(connection: Connection, direction: Literal["upgrade", "downgrade"], revision: str) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(next(iter(migrations.__path__)))).replace("%", "%%"))
    config.attributes["connection"] = connection
    getattr(command, direction)(config, revision)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _first_line(error: OperationalError) -> str:
    lines = [line.strip() for line in str(error.orig).splitlines() if line.strip()]
    return lines[0] if lines else "no answer"
