"""Hostile inputs of searches: the answer is correct or a clear error, and nothing changes; also for a reader role."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from registry.crystals import CrystalData, write_crystal
from registry.database import session_scope
from registry.encoders import EncoderKey, ensure_encoder, set_encoder_alias, write_embeddings
from registry.errors import EcdregError, NotFoundError, QueryError
from registry.files.grids import GridStore
from registry.postgres.roles import READER, grant
from registry.provenance import start_run
from registry.search.fusion import search_descriptions
from registry.search.vectors import similar_to_crystal, similar_to_text, similar_to_vector

SHA = "0" * 64
N = 12
HOSTILE = (
    "'; DROP TABLE crystals CASCADE; --",
    "mp-1' OR '1' = '1",
    "mp-1'); DELETE FROM embeddings; --",
    '"; DROP TABLE crystals; --',
    "$body$; DROP TABLE crystals; $body$",
    "$1",
    "%s %(a)s %",
    ":encoder",
    "\\'; DROP TABLE crystals; --",
    "U&'\\0027'",
    "mp-1/**/UNION/**/SELECT/**/1",
    "' || pg_sleep(5) || '",
    "x" * 100_000,
    "мп-1 \N{GREEK SMALL LETTER ALPHA} \U0001f600 \u202e",
    "\n\t\r",
    "",
)
UNHOLDABLE = ("mp-1\x00", "\ud800")


@pytest.fixture(params=["owner", "reader"])
def user_session(
    request: pytest.FixtureRequest,
    engine: Engine,
    cluster_url: str,
    make_crystal: Callable[..., CrystalData],
    tmp_path: Path,
) -> Iterator[Session]:
    """A session on twelve crystals, of their owner and of a reader; what they hold is the same afterwards."""
    with session_scope(engine) as session:
        run = start_run(session, source="test", source_release=None, parameters={})
        store = GridStore((tmp_path / "grids").as_uri())
        encoder = ensure_encoder(
            session, EncoderKey(weights_sha256=SHA, preprocessing={}), name="e", modality="text", dim=3
        )
        set_encoder_alias(session, "default", encoder)
        rows = []
        for i in range(N):
            crystal = make_crystal(
                f"mp-{i}", densities=False, text=f"rock salt, hard, crystal {i}", values={"k_vrh": 10.0 * (i + 1)}
            )
            rows.append((write_crystal(session, crystal, run_id=run.id, grids=store).revision_id, [1.0, i, -1.0], SHA))
        write_embeddings(session, encoder, rows)
    held = text(
        "SELECT (SELECT count(*) FROM crystals), (SELECT count(*) FROM embeddings),"
        " (SELECT count(*) FROM descriptions),"
        " (SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace),"
        " (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace)"
    )
    with engine.connect() as connection:
        before = connection.execute(held).one()
    as_whom = engine.url
    if request.param == "reader":
        grant(engine, "reader", "mallory")
        as_whom = engine.url.set(username="mallory")
    theirs = create_engine(as_whom)
    with Session(theirs) as session:
        yield session
        session.rollback()
    theirs.dispose()
    with engine.connect() as connection:
        assert connection.execute(held).one() == before
    if request.param == "reader":
        with engine.begin() as connection:
            connection.execute(text(f"DROP OWNED BY mallory, {READER}; DROP ROLE mallory, {READER}"))


def refused(session: Session, sql: str, **values: Any) -> str:
    """SQLSTATE of a statement that must fail."""
    with pytest.raises(DBAPIError) as caught, session.begin_nested():
        session.execute(text(sql), values).all()
    return str(getattr(caught.value.orig, "sqlstate", ""))


def test_ids_and_encoders(user_session: Session) -> None:
    for words in HOSTILE:
        with pytest.raises(NotFoundError, match="no crystal"):
            similar_to_crystal(user_session, words)
        with pytest.raises(NotFoundError, match="no encoder"):
            similar_to_crystal(user_session, "mp-1", encoder=words)
        with pytest.raises(NotFoundError, match="no encoder"):
            similar_to_vector(user_session, [1.0, 0, 0], encoder=words)
        assert refused(user_session, "SELECT * FROM similar_crystals(:w)", w=words) == "P0002"
        assert refused(user_session, "SELECT embedding_of(:w)", w=words) == "P0002"
        assert refused(user_session, "SELECT * FROM similar_crystals('mp-1', :w)", w=words) == "42704"
        assert refused(user_session, "SELECT * FROM similar_crystals('mp-1', metric => :w)", w=words) == "22023"
        with pytest.raises(QueryError, match="no metric"):
            similar_to_crystal(user_session, "mp-1", metric=words)
    for words in UNHOLDABLE:
        with pytest.raises(QueryError, match="character"):
            similar_to_crystal(user_session, words)
        with pytest.raises(QueryError, match="character"):
            similar_to_crystal(user_session, "mp-1", encoder=words)
        with pytest.raises(QueryError, match="character"):
            similar_to_text(user_session, words)
    assert len(similar_to_crystal(user_session, "mp-1", k=N)) == N - 1


def test_words(user_session: Session) -> None:
    wanted = ("rock & | ! <-> :*", "'rock' | 'salt", "rock:*'", "\\rock\\", "(((rock", "rock " * 5000)
    for words in (*HOSTILE, *wanted):
        with user_session.begin_nested():
            try:
                found = similar_to_text(user_session, words)
            except QueryError as error:
                assert "no word to search with" in str(error)  # noqa: PT017
                found = []
        if words in wanted:
            assert len(found) == 10
        both = similar_to_text(user_session, words, [1.0, 3.0, -1.0], encoder="e", k=1)
        assert len(both) == 1
        assert both[0].vector_rank is not None


def test_a_text_without_words_causes_no_notice(user_session: Session) -> None:
    connection = user_session.connection().connection.driver_connection
    assert connection is not None
    notices: list[str | None] = []
    connection.add_notice_handler(lambda diagnosis: notices.append(diagnosis.message_primary))
    for words in ("", " ", "the of", "?!", None):
        assert refused(user_session, "SELECT * FROM similar_to_text(:w)", w=words) == "22023"
        sql = text("SELECT words_rank, vector_rank FROM similar_to_text(:w, '[1,3,-1]', 'e', 1)")
        assert user_session.execute(sql, {"w": words}).all() == [(None, 1)]
    assert search_descriptions(user_session, "the of", limit=1) == []
    assert notices == []


FILTERS = (
    "1 = 1; DROP TABLE crystals",
    "k_vrh > 1; DROP TABLE crystals; --",
    "k_vrh > 1) OR (1 = 1",
    "k_vrh > (SELECT 1)",
    "EXISTS (SELECT FROM crystals)",
    "k_vrh > 1 UNION SELECT 1",
    "pg_sleep(5) IS NULL",
    "pg_read_file('/etc/passwd') = 'x'",
    "current_user = 'mallory'",
    "formula = 'a' || (SELECT version())",
    "k_vrh::text = '1'",
    "source_id = $1",
    "source_id = :a",
    "source_id = %s",
    "crystals.id = 1",
    "ctid IS NOT NULL",
    "xmin > 1",
    "\x00",
    "k_vrh > 1 -- \x00",
    "(" * 500 + "k_vrh > 1" + ")" * 500,
    "k_vrh > 1" + " AND k_vrh > 1" * 1000,
    "k_vrh > 'NaN'",
    "k_vrh > 1e999",
    "*",
    ";",
    "",
    "DELETE FROM crystals",
    "CASE WHEN k_vrh > 1 THEN true END",
    "formula ~ '(a+)+$'",
)


def test_invalid_filters(user_session: Session) -> None:
    for where in FILTERS:
        with pytest.raises(QueryError) as caught:
            similar_to_crystal(user_session, "mp-1", where=where)
        assert "\n" not in str(caught.value)
    assert len(similar_to_crystal(user_session, "mp-1", where="k_vrh > 100")) == 2


def test_filters_whose_values_are_hostile(user_session: Session) -> None:
    for words in HOSTILE:
        if "\\" in words or len(words) > 1000:
            continue  # a backslash may end a pattern; too long: see above
        quoted = words.replace("'", "''")
        assert similar_to_crystal(user_session, "mp-1", where=f"formula = '{quoted}'") == []
        assert similar_to_crystal(user_session, "mp-1", where=f"formula LIKE '{quoted}'") == []
        assert (
            len(similar_to_crystal(user_session, "mp-1", where=f"source_id = 'mp-2' OR formula IN ('{quoted}')")) == 1
        )


VECTORS = (
    ([np.nan, 1, 1], "finite"),
    ([np.inf, 1, 1], "finite"),
    ([1e39, 1, 1], "finite"),
    ([1, 1], "2 dimensions"),
    ([1] * 5000, "5000 dimensions"),
    ([1] * 20_000, "20000|16000"),
    ([0, 0, 0], "zero"),
    ([], "shape"),
    ([[1, 2, 3]], "shape"),
)


def test_invalid_vectors(user_session: Session) -> None:
    for vector, message in VECTORS:
        with pytest.raises(QueryError, match=message):
            similar_to_vector(user_session, vector)
        with pytest.raises(QueryError, match=message):
            similar_to_text(user_session, "rock", vector)
    assert len(similar_to_vector(user_session, [1.0, 0, 0])) == 10


def test_vectors_of_any_length(user_session: Session) -> None:
    for scale in (1e-38, 1e-20, 1e20, 1e38):
        found = similar_to_vector(user_session, np.array([1.0, 3.0, -1.0]) * scale, k=2)
        assert found[0].source_id == "mp-3"
        assert found[0].distance == pytest.approx(0, abs=1e-6)


def test_vectors_in_sql(user_session: Session) -> None:
    for written in ("[NaN,1,1]", "[inf,1,1]", "[1e39,1,1]", "[1,2", "'; DROP", "[]", "{1,2,3}"):
        state = refused(user_session, "SELECT * FROM similar_to_vector(CAST(:v AS vector))", v=written)
        assert state.startswith("22"), written
    assert refused(user_session, "SELECT * FROM similar_to_vector('[1,2]')") == "22000"
    assert refused(user_session, "SELECT * FROM similar_to_vector('[0,0,0]')") == "22000"
    assert len(user_session.execute(text("SELECT * FROM similar_to_vector('[0,0,0]', metric => 'l2')")).all()) == 10


def test_numbers_of_neighbours(user_session: Session) -> None:
    for k in (0, -1, 1_000_000, 10**30):
        with pytest.raises(QueryError, match="k is"):
            similar_to_crystal(user_session, "mp-1", k=k)
    for function in ("similar_crystals('mp-1'", "similar_to_vector('[1,0,0]'", "similar_to_text('rock'"):
        for k in ("0", "-1", "NULL"):
            assert refused(user_session, f"SELECT * FROM {function}, k => {k})") == "22023"
        assert refused(user_session, f"SELECT * FROM {function}, k => CAST(3000000000 AS int))") == "22003"
        for k in (1_000_000, 2_147_483_647):
            rows = user_session.execute(text(f"SELECT * FROM {function}, k => {k})")).all()
            assert len(rows) == (N - 1 if "crystals" in function else N)


def test_crystals_to_search_among(user_session: Session) -> None:
    ids = list(user_session.scalars(text("SELECT id FROM crystals ORDER BY id")))
    assert len(similar_to_vector(user_session, [1.0, 0, 0], within=[*ids[:3], *ids[:3], -1, 2**62])) == 3
    assert similar_to_vector(user_session, [1.0, 0, 0], within=[]) == []
    assert len(similar_to_vector(user_session, [1.0, 0, 0], within=list(range(200_000)))) == 10
    assert len(similar_to_vector(user_session, [1.0, 0, 0], within=ids, where="k_vrh > 100")) == 2
    assert len(similar_to_text(user_session, "rock", within=ids[:2], where="k_vrh > 10")) == 1
    with pytest.raises(EcdregError):
        similar_to_vector(user_session, [1.0, 0, 0], within=[2**80])
    assert (
        user_session.execute(text("SELECT * FROM similar_crystals('mp-1', within => ARRAY[NULL]::bigint[])")).all()
        == []
    )
