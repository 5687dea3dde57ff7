"""Tests of the migrations: equality with the models, upgrade, downgrade, and kept rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, inspect, text

import migrations
from registry.models import Base
from registry.postgres import schema
from registry.postgres.embedded import EmbeddedServer
from registry.postgres.schema import downgrade, revisions, schema_status, upgrade
from registry.postgres.surface import create_surface

CATALOGUE = {
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attstorage,
               pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v', 'c', 'm')
          AND c.relname <> 'alembic_version'
        ORDER BY 1, 2
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND conrelid <> coalesce(to_regclass('alembic_version'), 0::oid)
        ORDER BY 1, 2
    """,
    "indexes": """
        SELECT tablename, indexname, indexdef FROM pg_indexes
        WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY 1, 2
    """,
    "views": "SELECT viewname, definition FROM pg_views WHERE schemaname = 'public' ORDER BY 1",
    "functions": """
        SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc')
        FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
        ORDER BY 1
    """,
    "table comments": """
        SELECT relname, obj_description(oid, 'pg_class') FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'c') AND relname <> 'alembic_version'
        ORDER BY 1
    """,
}
ROWS = """
    INSERT INTO ingest_runs (source, parameters, code_version) VALUES ('a', '{}', 't');
    INSERT INTO crystals (source, source_id, material_key) VALUES ('a', 'x1', 'x1');
    INSERT INTO crystal_revisions (crystal_id, n, is_current, content_sha256, run_id, formula, chemsys, elements)
        SELECT c.id, 1, true, repeat('0', 64), r.id, 'Na', 'Na', '{Na}' FROM crystals c, ingest_runs r;
    INSERT INTO property_values (revision_id, property, level_of_theory, value)
        SELECT id, 'k_vrh', 'GGA', 6.5 FROM crystal_revisions;
    INSERT INTO encoders (name, modality, dim, weights_sha256, preprocessing, preprocessing_sha256)
        VALUES ('e', 'image', 2, repeat('0', 64), '{}', repeat('0', 64));
    INSERT INTO encoder_aliases SELECT 'default', id FROM encoders;
    INSERT INTO embeddings SELECT e.id, r.id, 2, '[3,4]', repeat('0', 64) FROM encoders e, crystal_revisions r;
"""


@pytest.fixture
def empty(cluster: EmbeddedServer) -> Iterator[Engine]:
    """Engine of a database without a schema."""
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE bare")
        engine = create_engine(cluster.url("bare").replace("postgresql:", "postgresql+psycopg:"))
        yield engine
        engine.dispose()
        admin.execute("DROP DATABASE bare WITH (FORCE)")


def catalogue(engine: Engine) -> dict[str, list[Any]]:
    with engine.connect() as connection:
        return {name: [tuple(row) for row in connection.execute(text(sql))] for name, sql in CATALOGUE.items()}


def run(connection: Connection, sql: str) -> None:
    connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def test_migrated_database_equals_the_models(engine: Engine, empty: Engine) -> None:
    with empty.begin() as connection:
        run(connection, "CREATE EXTENSION vector")
        Base.metadata.create_all(connection)
        create_surface(connection)
    migrated, declared = catalogue(engine), catalogue(empty)
    for part in CATALOGUE:
        assert migrated[part] == declared[part], part
        assert migrated[part], f"the catalogue query of {part} finds nothing"


def test_downgrade_removes_everything_and_an_upgrade_restores_it(empty: Engine) -> None:
    upgrade(empty)
    first = catalogue(empty)
    with empty.begin() as connection:
        run(connection, ROWS)
    downgrade(empty, "base")
    assert inspect(empty).get_table_names() == ["alembic_version"]
    assert inspect(empty).get_view_names() == []
    assert catalogue(empty)["functions"] == []
    upgrade(empty)
    assert catalogue(empty) == first


def test_upgrade_keeps_rows_and_replaces_the_surface(engine: Engine) -> None:
    with engine.begin() as connection:
        run(connection, ROWS)
        run(
            connection,
            "CREATE OR REPLACE FUNCTION ecdreg_surface() RETURNS text LANGUAGE sql AS $$SELECT 'older'::text$$",
        )
        run(connection, "DROP VIEW v_ingest_runs; CREATE VIEW v_ingest_runs AS SELECT 'older' AS version")
        run(connection, "DELETE FROM properties WHERE name = 'g_vrh'")
    assert schema_status(engine).state == "behind"
    upgrade(engine)
    assert schema_status(engine).state == "current"
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT k_vrh FROM v_materials")) == 6.5
        assert connection.scalar(text("SELECT embedding_of('x1')::text")) == "[3,4]"
        assert connection.scalar(text("SELECT crystals FROM v_ingest_runs")) == 0
        assert connection.scalar(text("SELECT unit FROM properties WHERE name = 'g_vrh'")) == "GPa"


def test_upgrade_is_all_or_nothing(empty: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(connection: Connection) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(schema, "create_surface", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        upgrade(empty)
    assert inspect(empty).get_table_names() == []


def test_revisions_are_one_line_named_by_their_files() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__path__[0])))
    script = ScriptDirectory.from_config(config)
    by_alembic = [revision.revision for revision in script.walk_revisions()][::-1]
    assert by_alembic == revisions()
    for revision in script.walk_revisions():
        assert Path(revision.path).name.startswith(f"{revision.revision}_")
        assert revision.doc.strip().endswith("."), f"{revision.path}: the docstring is not a sentence with the reason"


def test_every_table_and_number_is_documented(engine: Engine) -> None:
    with engine.connect() as connection:
        bare = connection.execute(
            text(
                "SELECT c.relname, a.attname FROM pg_class c"
                " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
                " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.atttypid = 'float8'::regtype"
                " AND col_description(c.oid, a.attnum) IS NULL"
            )
        ).all()
    assert bare == []


def test_vectors_are_stored_in_their_row_up_to_the_size_of_a_page(engine: Engine) -> None:
    with engine.begin() as connection:
        run(connection, ROWS)
        run(
            connection,
            """
            INSERT INTO encoders (name, modality, dim, weights_sha256, preprocessing, preprocessing_sha256)
                SELECT 'e' || d, 'image', d, repeat('1', 64), '{}', lpad(d::text, 64, '0')
                FROM (VALUES (1280), (2048)) v(d);
            INSERT INTO embeddings
                SELECT e.id, r.id, e.dim, array_agg(random())::vector, repeat('0', 64)
                FROM encoders e, crystal_revisions r, generate_series(1, e.dim)
                WHERE e.dim > 2 GROUP BY e.id, r.id;
            """,
        )
        toasted = connection.scalar(
            text(
                "SELECT pg_relation_size(reltoastrelid) / current_setting('block_size')::int"
                " FROM pg_class WHERE relname = 'embeddings'"
            )
        )
        dims = connection.execute(text("SELECT vector_dims(embedding) FROM embeddings ORDER BY 1")).scalars().all()
    assert dims == [2, 1280, 2048]
    assert toasted == 2  # pages of 2,048 dimensions (8,200 bytes); those of 1,280 are in the rows
