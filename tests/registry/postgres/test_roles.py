"""Tests of the roles: readers change nothing, and writers change rows but not the schema."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import psycopg
import pytest
from psycopg import errors
from psycopg.rows import TupleRow
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from registry.database import connect
from registry.encoders import EncoderKey, ensure_encoder, set_encoder_alias, write_embeddings
from registry.errors import ConfigurationError, DatabaseError, NotFoundError
from registry.models import Base
from registry.postgres.roles import READER, WRITER, grant, granted_roles
from registry.postgres.schema import downgrade, upgrade
from registry.postgres.surface import SURFACE_OBJECTS
from registry.search.indexes import build_index
from registry.search.vectors import similar_to_crystal
from registry.settings import Settings

if TYPE_CHECKING:
    from tests.registry.conftest import AddCrystal

SHA = "0" * 64
AsRole: TypeAlias = "Callable[[str], psycopg.Connection[TupleRow]]"
VIEWS = [name.removeprefix("VIEW ") for name in SURFACE_OBJECTS if name.startswith("VIEW ")]


@pytest.fixture
def roles(engine: Engine) -> Iterator[None]:
    """Drop the roles that a test creates, because they belong to the whole cluster."""
    yield
    with engine.begin() as connection:
        for role in ("alice", 'Bob "Carbon" 100 %:x', "weak", WRITER, READER):
            if connection.scalar(text("SELECT true FROM pg_roles WHERE rolname = :r"), {"r": role}):
                name = '"' + role.replace('"', '""').replace(":", r"\:") + '"'
                connection.execute(text(f"DROP OWNED BY {name}"))
                connection.execute(text(f"DROP ROLE {name}"))


@pytest.fixture
def filled(session: Session, add_crystal: AddCrystal, roles: None) -> None:
    """Three crystals with vectors and texts, and tables that do not belong to the registry."""
    encoder = ensure_encoder(
        session, EncoderKey(weights_sha256=SHA, preprocessing={}), name="e", modality="text", dim=2
    )
    set_encoder_alias(session, "default", encoder)
    rows = [
        (add_crystal(f"mp-{i}", densities=False, text=f"rock salt {i}").revision_id, [1.0, float(i)], SHA)
        for i in range(3)
    ]
    write_embeddings(session, encoder, rows)
    session.execute(text("CREATE TABLE secrets (word text)"))
    session.execute(text("CREATE SCHEMA other; CREATE TABLE other.more (word text)"))
    session.commit()


@pytest.fixture
def as_role(engine: Engine, cluster_url: str) -> Iterator[AsRole]:
    """Opens a connection of another role."""
    opened: list[psycopg.Connection[TupleRow]] = []

    def open_as(role: str) -> psycopg.Connection[TupleRow]:
        opened.append(psycopg.connect(cluster_url, user=role, autocommit=True))
        return opened[-1]

    yield open_as
    for connection in opened:
        connection.close()


def test_a_reader_may_query_everything(engine: Engine, filled: None, as_role: AsRole) -> None:
    assert grant(engine, "reader", "alice", only_registry=True)
    assert not grant(engine, "reader", "alice"), "the role exists"
    reader = as_role("alice")
    for view in VIEWS:
        reader.execute(f"SELECT * FROM {view}").fetchall()
    for table in Base.metadata.sorted_tables:
        reader.execute(f"SELECT * FROM {table.name}").fetchall()
    # In a new connection, in which pgvector is not loaded before the functions set its parameters.
    found = as_role("alice").execute("SELECT source_id FROM similar_crystals('mp-0')").fetchall()
    assert found == [("mp-1",), ("mp-2",)]
    for sql in (
        "SELECT * FROM similar_crystals('mp-0', 'e', 2, ARRAY(SELECT crystal_id FROM v_materials), 'l2')",
        "SELECT * FROM similar_to_vector('[1,0]', 'default', 5)",
        "SELECT * FROM similar_to_vector(embedding_of('mp-1'), metric => 'inner_product') JOIN v_materials"
        " USING (crystal_id)",
        "SELECT * FROM similar_to_text('rock salt')",
        "SELECT * FROM similar_to_text('rock salt', '[1,0]', 'e')",
        "SELECT ecdreg_surface()",
    ):
        assert reader.execute(sql).fetchall(), sql


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO crystals (source, source_id, material_key) VALUES ('a', 'b', 'c')",
        "UPDATE embeddings SET input_sha256 = repeat('1', 64)",
        "DELETE FROM crystals",
        "TRUNCATE crystals CASCADE",
        "INSERT INTO v_materials (source) VALUES ('a')",
        "UPDATE v_ingest_outcomes SET reason = 'x'",
        "SELECT * FROM crystals FOR UPDATE",
        "CREATE TABLE mine (a int)",
        "CREATE TEMP TABLE mine (a int)",
        "SELECT lo_create(0)",
        "SELECT lo_from_bytea(0, 'x')",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE INDEX ON embeddings (dim)",
        "DROP VIEW v_materials",
        "ALTER TABLE crystals ADD COLUMN a int",
        "CREATE OR REPLACE FUNCTION ecdreg_surface() RETURNS text LANGUAGE sql AS 'SELECT 1'",
        "SELECT * FROM secrets",
        "SELECT * FROM other.more",
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY crystals TO '/tmp/crystals'",
        "CREATE ROLE carol",
        "GRANT ecdreg_writer TO alice",
        "GRANT SELECT ON secrets TO alice",
        "SELECT nextval('crystals_id_seq')",
    ],
)
def test_a_reader_may_do_nothing_else(engine: Engine, filled: None, as_role: AsRole, sql: str) -> None:
    grant(engine, "writer")
    grant(engine, "reader", "alice", only_registry=True)
    # Views on several tables cannot be written by anyone.
    with pytest.raises((errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState)):
        as_role("alice").execute(sql)


def test_a_writer_may_change_only_rows(engine: Engine, filled: None, as_role: AsRole, cluster_url: str) -> None:
    name = 'Bob "Carbon" 100 %:x'
    assert grant(engine, "writer", name, only_registry=True)
    writer = as_role(name)
    writer.execute("INSERT INTO crystals (source, source_id, material_key) VALUES ('a', 'b', 'c')")
    writer.execute("UPDATE crystals SET material_key = 'd' WHERE source = 'a'")
    writer.execute("DELETE FROM crystals WHERE source = 'a'")
    url = cluster_url.replace("postgresql://postgres@", "postgresql://Bob%20%22Carbon%22%20100%20%25%3Ax@")
    restricted = connect(Settings(home=None, database_url=url))  # type: ignore[arg-type]
    with Session(restricted) as session, session.begin():
        [revision] = session.scalars(text("SELECT revision_id FROM v_materials WHERE source_id = 'mp-0'"))
        write_embeddings(session, 1, [(revision, np.array([3.0, 1.0]), SHA)])
        assert [n.source_id for n in similar_to_crystal(session, "mp-0")] == ["mp-1", "mp-2"]
    for sql in ("CREATE TABLE mine (a int)", "DROP TABLE embeddings", "TRUNCATE crystals CASCADE"):
        with pytest.raises(errors.InsufficientPrivilege):
            writer.execute(sql)
    with pytest.raises(DatabaseError, match=r"could not be built: must be owner of table embeddings; searches stay"):
        build_index(restricted, "e")
    restricted.dispose()


def test_an_upgrade_keeps_the_privileges(engine: Engine, filled: None, as_role: AsRole) -> None:
    grant(engine, "reader", "alice")
    upgrade(engine)
    assert as_role("alice").execute("SELECT count(*) FROM v_materials").fetchone() == (3,)
    assert as_role("alice").execute("SELECT count(*) FROM similar_crystals('mp-0')").fetchone() == (2,)
    with engine.connect() as connection:
        assert granted_roles(connection) == [READER]


def test_migrations_neither_create_nor_drop_roles(engine: Engine, roles: None) -> None:
    listed = text("SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'ecdreg%' ORDER BY 1")
    upgrade(engine)
    with engine.connect() as connection:
        assert connection.scalars(listed).all() == []
        assert granted_roles(connection) == []
    grant(engine, "reader")
    grant(engine, "writer")
    downgrade(engine, "base")
    upgrade(engine)
    with engine.connect() as connection:
        assert connection.scalars(listed).all() == [READER, WRITER]
        assert granted_roles(connection) == [], "their tables were new"


def test_invalid_names_are_refused(engine: Engine, roles: None, as_role: AsRole, cluster_url: str) -> None:
    for name in ("", " ", "pg_monitor", "x" * 64, "a\x00b"):
        with pytest.raises(ConfigurationError, match="cannot be the name of a role"):
            grant(engine, "reader", name)
    with pytest.raises(ConfigurationError, match="'postgres' is a superuser and has all privileges"):
        grant(engine, "reader", "postgres")
    with engine.begin() as connection:
        connection.execute(text("CREATE ROLE weak LOGIN"))
    grant(engine, "reader", "weak")
    weak = connect(Settings(home=None, database_url=cluster_url.replace("postgres@", "weak@")))  # type: ignore[arg-type]
    with pytest.raises(
        DatabaseError, match=r"administrator run `CREATE ROLE ecdreg_reader NOLOGIN; GRANT .* TO \"b\"`"
    ):
        grant(weak, "reader", "b")
    with Session(weak) as session, pytest.raises(NotFoundError):
        similar_to_crystal(session, "mp-0")
    weak.dispose()
