"""The registry of a command: its settings, and connections that are closed when the command is over."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from cli import output

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ecdreg import Registry
    from registry.settings import Settings

__all__ = ["at_end", "open_engine", "open_registry", "settings"]

at_end = ExitStack()
"""Callbacks at the end of the command; ``cli.main`` calls them."""


def settings() -> Settings:
    """Settings from environment variables."""
    from registry.settings import Settings

    return Settings.from_environ()


def open_engine(*, check_schema: bool = True) -> Engine:
    """Open an engine on the database of the registry; an embedded database is started and upgraded where needed.

    It is closed when the command is over.

    Raises
    ------
    EcdregError
        As :func:`ecdreg.database.connect`; the error boundary turns it into an exit code.
    """
    from ecdreg.database import connect

    chosen = settings()
    if chosen.embedded and not (chosen.postgres_data / "PG_VERSION").exists():
        output.note(f"making the embedded database in {chosen.postgres_data}")
    engine = connect(chosen, check_schema=check_schema)
    at_end.callback(engine.dispose)
    return engine


def open_registry() -> Registry:
    """Open the registry, as :func:`open_engine` does; it is closed when the command is over.

    Raises
    ------
    EcdregError
        As :func:`open_engine`.
    """
    from ecdreg import Registry

    return Registry(open_engine(), settings())
