"""Engines and their connections: URLs, restarts of the embedded server, and connection errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_fixed

from registry.errors import ConfigurationError, DatabaseUnreachableError
from registry.postgres import embedded

__all__ = ["RESTART_SECONDS", "connection_errors", "is_disconnect", "masked_url", "new_engine", "parse_url"]

CONNECT_SECONDS = 10
RESTART_SECONDS = 30
"""Time during which a stopped embedded server is started again for a connection."""

_REFUSED = re.compile(r"FATAL:(?!\s+(the database system is|terminating connection))")
"""Errors that a restart of the server does not solve. If no server listens, or a server closes the connection because
it shuts down, the message is that of libpq, which has no SQLSTATE for a failed connection."""


def new_engine(url: URL, application_name: str, data: Path | None = None) -> Engine:
    """Create an engine.

    Parameters
    ----------
    url
        The database.
    application_name
        Name of its connections in ``pg_stat_activity``.
    data
        Data directory of the embedded server, which is started again when a new connection finds it stopped. None:
        the server is not the embedded one.
    """
    defaults = {"application_name": application_name, "connect_timeout": CONNECT_SECONDS}
    arguments = {name: value for name, value in defaults.items() if name not in url.query}
    # native_hstore would cost a query for each connection, and no column is an hstore.
    engine = create_engine(url, connect_args=arguments, pool_pre_ping=True, use_native_hstore=False)
    if data is not None:
        _restart_on_connect(engine, data)
    return engine


def parse_url(url: str) -> URL:
    """SQLAlchemy URL of a libpq or SQLAlchemy URL.

    Raises
    ------
    ConfigurationError
        If it is not a PostgreSQL URL. The message does not contain any part of the URL, which may have a password.
    """
    rest = re.sub(r"^postgres(ql)?(\+\w+)?://", "", url)
    if rest == url:
        raise ConfigurationError(
            "ECDREG_DATABASE_URL is not a PostgreSQL URL; write it as postgresql://user:password@host:5432/database"
        )
    try:
        return make_url(f"postgresql+psycopg://{rest}")
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "ECDREG_DATABASE_URL cannot be parsed; write it as postgresql://user:password@host:5432/database, "
            "with special characters of the password percent-encoded"
        ) from None


def masked_url(url: URL) -> str:
    """The libpq form of a URL for display, with ``***`` instead of the password."""
    secret = {name: "***" for name in ("password", "sslpassword") if name in url.query}
    masked = url.set(drivername="postgresql").update_query_dict(secret).render_as_string(hide_password=True)
    return masked.replace("%2A%2A%2A", "***")


@contextmanager
def connection_errors(engine: Engine) -> Iterator[None]:
    """Convert a failed or lost connection into an error with a remedy.

    Raises
    ------
    DatabaseUnreachableError
        Instead of an OperationalError of the connection; those of statements are raised unchanged.
    """
    try:
        yield
    except OperationalError as error:
        if error.statement is None or error.connection_invalidated:
            raise DatabaseUnreachableError(
                f"no database at {masked_url(engine.url)}: {_first_line(error)}; "
                "check that the server runs (`ecdreg db status`) and ECDREG_DATABASE_URL"
            ) from error
        raise


def is_disconnect(error: BaseException) -> bool:
    """Whether the server closed a connection, during the connection attempt or later, because it stopped."""
    if isinstance(error, DatabaseUnreachableError) and error.__cause__ is not None:
        error = error.__cause__
    if not isinstance(error, OperationalError) or _REFUSED.search(str(error.orig)):
        return False
    return error.connection_invalidated or error.statement is None


def _restart_on_connect(engine: Engine, data: Path) -> None:
    """Start the embedded server again if a new connection finds it stopped or stopping.

    Another process may stop it between :func:`registry.postgres.embedded.start` and a connection, or while this
    process has no connection in use.
    """

    def connect(dialect: Any, _: object, arguments: list[Any], options: dict[str, Any]) -> object:
        def is_solved_by_restart(error: BaseException) -> bool:
            return isinstance(error, dialect.loaded_dbapi.OperationalError) and not _REFUSED.search(str(error))

        def restart(_: RetryCallState) -> None:
            embedded.start(data)

        attempts = Retrying(
            retry=retry_if_exception(is_solved_by_restart),
            stop=stop_after_delay(RESTART_SECONDS),
            before_sleep=restart,
            # After a crash the server may report that it is ready while it still recovers.
            wait=wait_fixed(0.02),
            reraise=True,
        )
        return attempts(dialect.connect, *arguments, **options)

    event.listen(engine, "do_connect", connect)


def _first_line(error: OperationalError) -> str:
    lines = [line.strip() for line in str(error.orig).splitlines() if line.strip()]
    return lines[0] if lines else "the server gave no reason"
