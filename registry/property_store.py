"""Properties that users add: definition, validation, storage and the columns that follow from them.

Adding or removing one changes the schema: the views, types and functions of the SQL surface are created again with the
columns of all properties (:mod:`registry.postgres.surface`), in one transaction that other schema changes wait for.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, Engine, delete, func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from registry.errors import ConfigurationError, DatabaseError
from registry.models import Property, PropertyValue, Split
from registry.postgres.roles import granted_roles, renew_grants
from registry.postgres.schema import schema_change
from registry.postgres.surface import create_surface, drop_surface
from registry.properties import PROPERTIES, PropertyDefinition, property_named, refresh_properties
from registry.search.filters import FIXED_COLUMNS, can_name_column

__all__ = ["RESERVED_NAMES", "StoredProperty", "add_property", "list_properties", "remove_property"]

RESERVED_NAMES = frozenset(FIXED_COLUMNS) | {
    # columns of dataset folders
    "id",
    "level_of_theory",
    # columns of the answers of searches
    "distance",
    "rank",
    "ranks",
    "score",
    "words_rank",
    "vector_rank",
}
"""Names of columns that properties stand beside, and that none of them can have."""

_LONGEST_NAME = 63
_LONGEST_TEXT = 200


@dataclass(frozen=True)
class StoredProperty:
    """A property of the registry and how often it is used."""

    definition: PropertyDefinition
    values: int
    """Values of all revisions and levels of theory."""
    splits: int
    """Splits that have it as their target."""


def list_properties(session: Session) -> list[StoredProperty]:
    """All properties: the built-in ones in the order of their columns, then those that users added, by name.

    Parameters
    ----------
    session
        On the registry.
    """
    refresh_properties(session.connection())
    values = dict(session.execute(select(PropertyValue.property, func.count()).group_by(PropertyValue.property)).all())
    splits = dict(session.execute(select(Split.target, func.count()).group_by(Split.target)).all())
    return [StoredProperty(one, values.get(name, 0), splits.get(name, 0)) for name, one in PROPERTIES.items()]


def add_property(engine: Engine, definition: PropertyDefinition) -> None:
    """Add a property of the user's own: a column of ``v_materials``, of dataset folders, and a possible target.

    Commits. Other processes know it as soon as they connect again.

    Parameters
    ----------
    engine
        As :func:`registry.database.connect` makes it.
    definition
        Its name must be a new one; both ends of its range must be finite.

    Raises
    ------
    ConfigurationError
        If the name is taken, reserved or cannot name a column, the unit or a text is missing, or the range or the
        lower bound cannot be used; or if a view of the user's own depends on the registry's.
    DatabaseError
        If this role may not change the schema.
    SchemaBehindError
        If other sessions hold locks on the views for too long.
    """
    _check_texts(definition)
    _check_range(definition)
    with _schema_change(engine, f"add the property {definition.name!r}") as connection:
        refresh_properties(connection)
        _check_name(connection, definition.name)
        connection.execute(insert(Property).values(**asdict(definition), builtin=False))
        _rebuild_surface(connection)
    _refresh(engine)


def remove_property(engine: Engine, name: str) -> None:
    """Remove a property that a user added and nothing uses.

    Commits.

    Parameters
    ----------
    engine
        As :func:`registry.database.connect` makes it.
    name
        Its name.

    Raises
    ------
    UnknownNameError
        If there is no such property.
    ConfigurationError
        If it is built in, if values or splits use it, or if a view of the user's own depends on the registry's.
    DatabaseError, SchemaBehindError
        As :func:`add_property`.
    """
    with _schema_change(engine, f"remove the property {name!r}") as connection:
        refresh_properties(connection)
        if property_named(name).builtin:
            raise ConfigurationError(f"the property {name!r} is built in and cannot be removed")
        # Values that another session is writing now: wait for it, and keep others from beginning.
        connection.execute(text("LOCK TABLE property_values, splits IN SHARE ROW EXCLUSIVE MODE"))
        values = connection.scalar(select(func.count()).where(PropertyValue.property == name))
        splits = connection.scalar(select(func.count()).where(Split.target == name))
        if values or splits:
            raise ConfigurationError(
                f"the property {name!r} is used by {values} values and {splits} splits;"
                " only an unused one can be removed"
            )
        connection.execute(delete(Property).where(Property.name == name))
        _rebuild_surface(connection)
    _refresh(engine)


# ---------------------------------------------------------------------------- validation


def _check_name(connection: Connection, name: str) -> None:
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or len(name) > _LONGEST_NAME:
        raise ConfigurationError(
            f"{name[:80]!r} cannot name a property; use lower-case letters, digits and _, beginning with a letter,"
            f" {_LONGEST_NAME} characters at most"
        )
    if name in PROPERTIES:
        kind = "is built in" if PROPERTIES[name].builtin else "is in the registry already"
        raise ConfigurationError(f"the property {name!r} {kind}; choose another name")
    if name in RESERVED_NAMES:
        raise ConfigurationError(f"{name!r} is the name of another column; choose another name for the property")
    keyword = text("SELECT true FROM pg_get_keywords() WHERE word = :name AND catcode <> 'U'")
    if connection.scalar(keyword, {"name": name}) or not can_name_column(name):
        raise ConfigurationError(f"{name!r} is a keyword of SQL; choose another name for the property")


def _check_texts(definition: PropertyDefinition) -> None:
    for what, value in (
        ("unit", definition.unit),
        ("label", definition.label),
        ("description", definition.description),
        ("reason of the range", definition.range_reason),
    ):
        if not value.strip() or not value.isprintable() or len(value) > _LONGEST_TEXT:
            raise ConfigurationError(
                f"the {what} of {definition.name[:80]!r} is {value[:40]!r}; give one line of 1 to {_LONGEST_TEXT}"
                " characters" + (" (1 for a number without a unit)" if what == "unit" else "")
            )


def _check_range(definition: PropertyDefinition) -> None:
    low, high, bound = definition.plausible_min, definition.plausible_max, definition.lower_bound
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigurationError(
            f"the range of {definition.name[:80]!r} is {low:g} to {high:g}; give two numbers, the smaller one first"
        )
    if bound is not None and not (math.isfinite(bound) and bound <= low):
        raise ConfigurationError(
            f"the lower bound of {definition.name[:80]!r} is {bound:g}, above the range that begins at {low:g};"
            " give a bound that no plausible value is below"
        )


# -------------------------------------------------------------------------------- schema


@contextmanager
def _schema_change(engine: Engine, what: str) -> Iterator[Connection]:
    try:
        with schema_change(engine) as connection:
            yield connection
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != "42501":
            raise
        raise DatabaseError(
            f"this role may not change the schema, and so not {what}; let the owner of the registry's tables do it"
        ) from error


def _rebuild_surface(connection: Connection) -> None:
    roles = granted_roles(connection)
    drop_surface(connection)
    create_surface(connection)
    renew_grants(connection, roles)


def _refresh(engine: Engine) -> None:
    with engine.connect() as connection:
        refresh_properties(connection)
