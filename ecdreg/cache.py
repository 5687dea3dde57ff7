"""Density cache: its content, and removal of grids that the registry does not need."""

from __future__ import annotations

from datetime import timedelta

from ecdreg.database import database_exists
from registry.database import connect, session_scope
from registry.errors import ConfigurationError
from registry.files import cache
from registry.files.cache import CacheStatus, PrunePlan
from registry.files.grids import GridStore
from registry.settings import Settings

__all__ = ["CacheStatus", "PrunePlan", "cache_status", "plan_prune", "prune"]


def cache_status(settings: Settings) -> CacheStatus:
    """Count the files of the cache, and those that this registry refers to; no database is made for that.

    Parameters
    ----------
    settings
        Which cache, and which registry.

    Raises
    ------
    DatabaseUnreachableError, UnsuitableServerError, SchemaBehindError
        As :func:`registry.database.connect`.
    """
    grids = GridStore(settings.grids_url)
    if not database_exists(settings):
        return cache.cache_status(None, grids)
    engine = connect(settings)
    try:
        with session_scope(engine) as session:
            return cache.cache_status(session, grids)
    finally:
        engine.dispose()


def plan_prune(settings: Settings, *, older_than: timedelta = timedelta(days=30)) -> PrunePlan:
    """Find the files that this registry does not need and that were not written or used lately.

    Parameters
    ----------
    settings
        Which cache, and which registry.
    older_than
        Younger files stay: another registry may use them, or an ingest may be writing them.

    Raises
    ------
    ConfigurationError
        If there is no registry, so that the needed grids are unknown.
    DatabaseUnreachableError, UnsuitableServerError, SchemaBehindError
        As :func:`registry.database.connect`.
    """
    if not database_exists(settings):
        raise ConfigurationError(
            f"there is no registry in {settings.home}, so it is not known which grids are needed; set ECDREG_HOME"
        )
    engine = connect(settings)
    try:
        with session_scope(engine) as session:
            return cache.plan_prune(session, GridStore(settings.grids_url), older_than=older_than)
    finally:
        engine.dispose()


def prune(settings: Settings, plan: PrunePlan) -> None:
    """Remove the files of a plan from the cache."""
    cache.prune(GridStore(settings.grids_url), plan)
