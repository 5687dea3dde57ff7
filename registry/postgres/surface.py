"""The SQL surface: views, types and functions for users of SQL.

Its SQL is stored beside this module in ``sql/``, as SQL; columns of properties are generated. It is a repeatable
migration: dropped before the tables change, created again after. The body of the database function
``ecdreg_surface()`` holds its checksum, and that function's comment the list of its objects, so that a later version
can drop objects that it no longer has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from registry.errors import ConfigurationError
from registry.properties import BUILTIN_PROPERTIES, LEVELS_OF_THEORY, PropertyDefinition, read_added_properties

__all__ = ["SURFACE_OBJECTS", "create_surface", "drop_surface", "surface_sha256", "surface_sql"]

SURFACE_OBJECTS = (
    "FUNCTION similar_crystals(text, text, int, bigint[], text)",
    "FUNCTION similar_to_vector(vector, text, int, bigint[], text)",
    "FUNCTION similar_to_text(text, vector, text, int, bigint[], text)",
    "FUNCTION embedding_of(text, text)",
    "FUNCTION ecdreg_vector(bigint, encoders, text)",
    "FUNCTION ecdreg_nearest(vector, encoders, int, bigint[], bigint[], text)",
    "FUNCTION ecdreg_search(vector, encoders, int, bigint[], bigint[], text)",
    "FUNCTION ecdreg_encoder(text)",
    "FUNCTION ecdreg_crystal(text)",
    "TYPE text_neighbour",
    "TYPE neighbour",
    "VIEW v_ingest_outcomes",
    "VIEW v_ingest_runs",
    "VIEW v_leaderboard",
    "VIEW v_predictions",
    "VIEW v_materials",
)
"""Every object of the surface, in an order in which they can be dropped."""

FILES = ("materials.sql", "models.sql", "ingest.sql", "search.sql", "tables.sql")


def create_surface(connection: Connection) -> None:
    """Create all views, types and functions, and record their checksum; the tables must be at head.

    Parameters
    ----------
    connection
        Its table ``properties`` holds the properties that users added; they become columns.
    """
    # Settings of pgvector's may stand in a function only after the extension is loaded.
    _run(connection, "SELECT '[1]'::vector")
    added = read_added_properties(connection)
    _run(connection, surface_sql(added))
    marker = f"SELECT '{surface_sha256(added)}'::text"
    _run(connection, f"CREATE FUNCTION ecdreg_surface() RETURNS text LANGUAGE sql IMMUTABLE AS $${marker}$$")
    objects = "\n".join(SURFACE_OBJECTS)
    _run(connection, f"COMMENT ON FUNCTION ecdreg_surface() IS $${objects}$$")


def drop_surface(connection: Connection) -> None:
    """Drop the views, types and functions that any version of :func:`create_surface` created.

    Raises
    ------
    ConfigurationError
        If a view or function of the user's own depends on one of them.
    """
    recorded = connection.scalar(text("SELECT obj_description(to_regprocedure('ecdreg_surface()'), 'pg_proc')")) or ""
    for name in dict.fromkeys((*recorded.splitlines(), *SURFACE_OBJECTS)):
        try:
            _run(connection, f"DROP {name.replace(' ', ' IF EXISTS ', 1)}")
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != "2BP01":
                raise
            detail = str(getattr(getattr(error.orig, "diag", None), "message_detail", "")).splitlines()
            raise ConfigurationError(
                f"{name.split('(')[0].lower()} cannot be replaced: {'; '.join(detail)}; drop that, "
                "repeat this (or run `ecdreg db upgrade`), and create it again"
            ) from error
    _run(connection, "DROP FUNCTION IF EXISTS ecdreg_surface()")


def surface_sha256(added: Iterable[PropertyDefinition] = ()) -> str:
    """Checksum of the surface of this version, and of the definitions that are copied to tables.

    Parameters
    ----------
    added
        Properties that users added, sorted by name.
    """
    added = tuple(added)
    content = f"{surface_sql(added)}{BUILTIN_PROPERTIES}{added}{LEVELS_OF_THEORY}"
    return hashlib.sha256(content.encode()).hexdigest()


def surface_sql(added: Iterable[PropertyDefinition] = ()) -> str:
    """The SQL that creates the surface, with the columns of the properties filled in.

    Parameters
    ----------
    added
        Properties that users added, sorted by name; their columns follow those of the built-in ones.
    """
    folder = Path(__file__).parent / "sql"
    sql = "\n".join((folder / name).read_text(encoding="utf-8") for name in FILES)
    properties = [*BUILTIN_PROPERTIES.values(), *added]
    targets = [definition for definition in properties if definition.target]
    generated = {
        "property columns": "\n       ".join(_view_column(definition) for definition in properties),
        "target columns": "\n    ".join(f"{definition.name} double precision," for definition in targets),
        "target values": " ".join(f"m.{definition.name}," for definition in targets),
        "target comments of neighbour": _target_comments("neighbour", targets),
        "target comments of text_neighbour": _target_comments("text_neighbour", targets),
    }
    for place, text_ in generated.items():
        sql = sql.replace(f"/* {place} */", text_)
    return sql + "\n".join(_view_comment(definition) for definition in properties) + "\n"


# ---------------------------------------------------------------------------- the SQL text


def _run(connection: Connection, sql: str) -> None:
    # Without parameters several statements may come at once, and % is not a placeholder.
    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def _view_column(definition: PropertyDefinition) -> str:
    return f"""(
           SELECT v.value
           FROM property_values v
           JOIN levels_of_theory l ON l.name = v.level_of_theory
           WHERE v.revision_id = r.id AND v.property = '{definition.name}'
           ORDER BY l.preference, l.name
           LIMIT 1
       ) AS {definition.name},"""


def _view_comment(definition: PropertyDefinition) -> str:
    meaning = f"{definition.description} [{definition.unit}]; at the preferred level of theory"
    return f"COMMENT ON COLUMN v_materials.{definition.name} IS {_literal(meaning)};"


def _target_comments(kind: str, targets: Iterable[PropertyDefinition]) -> str:
    return "\n".join(
        f"COMMENT ON COLUMN {kind}.{definition.name} IS {_literal(f'{definition.label} [{definition.unit}]')};"
        for definition in targets
    )


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
