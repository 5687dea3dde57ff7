"""Settings from environment variables: folders of the user's data, and the database.

``ECDREG_HOME``
    Folder of the embedded database, the model weights and the caches. Default:
    ``/var/lib/ecdreg`` for root, and the user data folder of the platform for other users.
``ECDREG_DATABASE_URL``
    SQLAlchemy or libpq URL of a database on a server of the user. Default: the embedded database.
``ECDREG_CACHE``
    fsspec URL of the density grids. Default: ``ECDREG_HOME/grids``.
``ECDREG_MODELS``
    Folder with pre-trained backbones, which is searched before any hub.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["POSTGRES_MAJOR", "Settings"]

POSTGRES_MAJOR = 18
"""Major version of the embedded PostgreSQL; part of the name of its data directory."""


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
        """Settings from environment variables (default: ``os.environ``); reads and writes no file."""
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
        """Folder of the model weights, which are named by their checksum."""
        return self.home / "artifacts"

    @property
    def grids_url(self) -> str:
        """fsspec URL of the density grids, which are named by their checksum."""
        return self.cache_url or (self.home / "grids").as_uri()


def _default_home() -> Path:
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/ecdreg")
    from platformdirs import user_data_path

    return user_data_path("ecdreg", appauthor=False)
