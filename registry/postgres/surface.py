"""The SQL surface: views and functions for people who write SQL.

Its SQL lies beside this module in ``sql/``, to be read and edited as SQL. It is a repeatable
migration: dropped before the tables change, made anew after, its checksum kept in the body
of the database function ``ecdreg_surface()`` and the list of its objects in that function's
comment, so that a later version drops what it no longer knows.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from registry.errors import ConfigurationError
from registry.properties import LEVELS_OF_THEORY, PROPERTIES

__all__ = ["SURFACE_OBJECTS", "SURFACE_SHA256", "create_surface", "drop_surface", "surface_sql"]

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
"""Everything that the surface consists of, in the order in which it can be dropped."""

FILES = ("materials.sql", "models.sql", "ingest.sql", "search.sql", "tables.sql")
PROPERTY_COLUMNS = "/* property columns */"


def create_surface(connection: Connection) -> None:
    """Make all views and functions, and note their checksum; the tables must be at head."""
    # Settings of pgvector's may stand in a function only after the extension is loaded.
    _run(connection, "SELECT '[1]'::vector")
    _run(connection, surface_sql())
    marker = f"SELECT '{SURFACE_SHA256}'::text"
    _run(connection, f"CREATE FUNCTION ecdreg_surface() RETURNS text LANGUAGE sql IMMUTABLE AS $${marker}$$")
    objects = "\n".join(SURFACE_OBJECTS)
    _run(connection, f"COMMENT ON FUNCTION ecdreg_surface() IS $${objects}$$")


def drop_surface(connection: Connection) -> None:
    """Drop the views and functions that some version of :func:`create_surface` made, if any.

    Raises
    ------
    ConfigurationError
        If a view or function of the user's own is built on one of them.
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
                f"{name.split('(')[0].lower()} cannot be renewed: {'; '.join(detail)}; drop that, "
                "run `ecdreg db upgrade`, and make it again"
            ) from error
    _run(connection, "DROP FUNCTION IF EXISTS ecdreg_surface()")


# ---------------------------------------------------------------------------- the SQL text


def _run(connection: Connection, sql: str) -> None:
    # Without parameters several statements may come at once, and % is no placeholder.
    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def surface_sql() -> str:
    """The SQL that makes the surface, with the columns of the properties filled in."""
    folder = Path(__file__).parent / "sql"
    sql = "\n".join((folder / name).read_text(encoding="utf-8") for name in FILES)
    columns, comments = [], []
    for definition in PROPERTIES.values():
        columns.append(
            f"""(
           SELECT v.value
           FROM property_values v
           JOIN levels_of_theory l ON l.name = v.level_of_theory
           WHERE v.revision_id = r.id AND v.property = '{definition.name}'
           ORDER BY l.preference, l.name
           LIMIT 1
       ) AS {definition.name},"""
        )
        meaning = f"{definition.description} [{definition.unit}]; at the preferred level of theory".replace("'", "''")
        comments.append(f"COMMENT ON COLUMN v_materials.{definition.name} IS '{meaning}';")
    return sql.replace(PROPERTY_COLUMNS, "\n       ".join(columns)) + "\n".join(comments) + "\n"


SURFACE_SHA256 = hashlib.sha256(f"{surface_sql()}{PROPERTIES}{LEVELS_OF_THEORY}".encode()).hexdigest()
"""Checksum of the surface that this version makes, and of the definitions that stand in tables."""
