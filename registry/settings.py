"""Where a user's state lies, and which database is meant.

``ECDREG_HOME``
    One folder for all state (embedded database, artifacts, caches). Without it:
    ``/var/lib/ecdreg`` for root, the platform's user data folder otherwise.
``ECDREG_DATABASE_URL``
    A PostgreSQL server of the user's own, as a SQLAlchemy or libpq URL. Without it the
    embedded database is used.
``ECDREG_CACHE``
    An fsspec URL for the density grids. Without it: ``ECDREG_HOME/grids``.
``ECDREG_MODELS``
    A folder with pre-trained backbones, looked into before any hub.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["POSTGRES_MAJOR", "Settings"]

POSTGRES_MAJOR = 18
"""Major version of the embedded PostgreSQL; part of its data directory's name."""


@dataclass(frozen=True)
class Settings:
    """Resolved settings; see the module's docstring for the environment variables."""

    home: Path
    database_url: str | None = None
    """None: the embedded database under :attr:`postgres_data`."""
    cache_url: str | None = None
    models: Path | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Settings from environment variables (``os.environ`` by default); touches no file."""
        env = os.environ if environ is None else environ
        home = env.get("ECDREG_HOME")
        models = env.get("ECDREG_MODELS")
        return cls(
            home=Path(home).expanduser().absolute() if home else _default_home(),
            database_url=env.get("ECDREG_DATABASE_URL") or None,
            cache_url=env.get("ECDREG_CACHE") or None,
            models=Path(models).expanduser().absolute() if models else None,
        )

    @property
    def embedded(self) -> bool:
        """Whether the database is the embedded one."""
        return self.database_url is None

    @property
    def postgres_data(self) -> Path:
        """Data directory of the embedded cluster."""
        return self.home / f"pg{POSTGRES_MAJOR}"

    @property
    def artifacts(self) -> Path:
        """Folder of the content-addressed model weights."""
        return self.home / "artifacts"

    @property
    def grids_url(self) -> str:
        """fsspec URL of the content-addressed density grids."""
        return self.cache_url or (self.home / "grids").as_uri()


def _default_home() -> Path:
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/ecdreg")
    from platformdirs import user_data_path

    return user_data_path("ecdreg", appauthor=False)
