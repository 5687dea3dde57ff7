"""Connection to the registry's database, and the scope of a transaction.

:func:`connect` returns an engine on the embedded database, which it starts and upgrades automatically, or on a server
of the user, which it only checks. :func:`session_scope` owns the transaction: functions of ``registry`` take its
session and never commit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session
from tenacity import Retrying, retry_if_exception, stop_after_delay

from registry.postgres import embedded
from registry.postgres.connections import RESTART_SECONDS, connection_errors, is_disconnect, new_engine, parse_url
from registry.postgres.schema import require_schema
from registry.properties import refresh_properties
from registry.settings import Settings

__all__ = ["DATABASE", "connect", "connection_url", "session_scope"]

DATABASE = "ecdreg"
"""Name of the database in the embedded cluster."""


def connect(settings: Settings | None = None, *, application_name: str = "ecdreg", check_schema: bool = True) -> Engine:
    """Engine on the registry's database.

    The embedded server is started if it does not run, its database is created, and its schema is upgraded. A server
    of the user is checked and never changed.

    Parameters
    ----------
    settings
        Default: those of the environment.
    application_name
        Name of the connections in ``pg_stat_activity``.
    check_schema
        False: neither check nor upgrade the schema, as ``ecdreg db`` needs it.

    Raises
    ------
    ConfigurationError
        If ``ECDREG_DATABASE_URL`` is not a PostgreSQL URL.
    DatabaseUnreachableError
        If no server answers, or the embedded one cannot be started.
    UnsuitableServerError
        If the server is too old, or has no pgvector or an old one.
    SchemaBehindError
        If the schema of the user's server is older than the code, or any schema is newer than the code.
    """
    settings = settings or Settings.from_environ()
    data = settings.postgres_data if settings.embedded else None
    engine = new_engine(connection_url(settings), application_name, data)

    def prepare() -> None:
        try:
            if data is not None:
                _ensure_database(engine, application_name, data)
            else:
                with connection_errors(engine), engine.connect():
                    pass
            if check_schema:
                require_schema(engine, upgrade_allowed=settings.embedded)
                with engine.connect() as connection:
                    refresh_properties(connection)
        except BaseException:
            engine.dispose()
            raise

    # `ecdreg db stop` may stop the embedded server between any two statements. A retry starts it again.
    attempts = Retrying(
        retry=retry_if_exception(lambda error: data is not None and is_disconnect(error)),
        stop=stop_after_delay(RESTART_SECONDS),
        reraise=True,
    )
    attempts(prepare)
    return engine


@contextmanager
def session_scope(engine: Engine) -> Iterator[Session]:
    """A session in a transaction, which is committed at the end and rolled back after an exception.

    Its objects stay readable after the commit.
    """
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


def connection_url(settings: Settings) -> URL:
    """SQLAlchemy URL of the registry's database; starts the embedded server if the settings name no other.

    Raises
    ------
    ConfigurationError
        If ``ECDREG_DATABASE_URL`` is not a PostgreSQL URL. The message does not contain any part of it.
    DatabaseUnreachableError
        If the embedded server cannot be started.
    """
    url = settings.database_url
    return parse_url(embedded.start(settings.postgres_data).url(DATABASE) if url is None else url)


def _ensure_database(engine: Engine, application_name: str, data: Path) -> None:
    """Connect to the embedded database; create it in a new cluster."""
    try:
        with engine.connect():
            return
    except OperationalError as error:
        if f'database "{DATABASE}" does not exist' not in str(error.orig):
            with connection_errors(engine):
                raise
    admin = new_engine(engine.url.set(database="postgres"), application_name, data)
    try:
        with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"CREATE DATABASE {DATABASE}"))
    except DBAPIError as error:
        # Another process created it: duplicate_database, or a unique violation if both commit at the same time.
        if getattr(error.orig, "sqlstate", None) not in ("42P04", "23505"):
            raise
    finally:
        admin.dispose()
