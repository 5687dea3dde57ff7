"""Connection to a registry: its engine and its settings, which every use case takes."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from registry.settings import Settings

__all__ = ["RegistryConnection"]


class RegistryConnection:
    """An open registry; made by :meth:`open`, closed by :meth:`close` or at the end of ``with``.

    Use cases are functions that take it, and methods of its subclass :class:`ecdreg.registry.Registry`.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine = engine
        """Engine of the database, for SQLAlchemy or ``registry.database.session_scope``."""
        self.settings = settings

    @classmethod
    def open(cls, home: str | Path | None = None, url: str | None = None) -> Self:
        """Open the registry; the embedded database is started, and made, where needed.

        Parameters
        ----------
        home
            Folder of all state; None: ``ECDREG_HOME``, else the platform's.
        url
            A PostgreSQL server of your own; None: ``ECDREG_DATABASE_URL``, else the embedded database.

        Raises
        ------
        DatabaseUnreachableError, UnsuitableServerError, SchemaBehindError
            As :func:`registry.database.connect`.
        """
        import os

        from registry.database import connect
        from registry.settings import Settings

        given = {"ECDREG_HOME": None if home is None else str(home), "ECDREG_DATABASE_URL": url}
        settings = Settings.from_environ({**os.environ, **{k: v for k, v in given.items() if v is not None}})
        return cls(connect(settings, application_name="ecdreg notebook"), settings)

    def close(self) -> None:
        """Close the connections; an embedded database keeps running for other processes."""
        self.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
