from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from registry.crystals import WrittenCrystal
from registry.errors import QueryError
from registry.search.filters import columns, parse
from registry.search.filters import materials as view_materials

KINDS = {"number": {"double precision", "integer", "smallint", "bigint"}, "text": {"text"}, "list of texts": {"ARRAY"}}


@pytest.fixture
def materials(add_crystal: Callable[..., WrittenCrystal]) -> None:
    for ident, formula, k_vrh, efermi in (
        ("a", "NaCl", 24.0, 1.0),
        ("b", "TiO2", 212.0, 5.0),
        ("c", "TiN", 277.0, -2.0),
        ("d", "W", 304.0, 9.5),
    ):
        add_crystal(ident, formula=formula, values={"k_vrh": k_vrh, "efermi": efermi}, densities=False)
    add_crystal("e", formula="NaF", values={"efermi": 0.5}, densities=False, prototype=None)


FOUND = {
    "k_vrh > 250": "cd",
    "K_VRH >= 212 AND k_vrh <= 277": "bc",
    "k_vrh BETWEEN 200 AND 280": "bc",
    "NOT k_vrh BETWEEN 200 AND 280": "ad",
    "k_vrh < 100 OR formula = 'W'": "ad",
    "k_vrh > 250 OR k_vrh < 100 AND formula = 'W'": "cd",
    "(k_vrh > 250 OR k_vrh < 100) AND formula = 'W'": "d",
    "NOT (formula = 'W' OR formula = 'TiN')": "abe",
    "formula <> 'W' AND formula != 'TiN'": "abe",
    "formula IN ('W', 'TiN', 'Xx')": "cd",
    "formula NOT IN ('W', 'TiN')": "abe",
    "formula LIKE 'Na%'": "ae",
    "formula NOT LIKE 'Na%'": "bcd",
    "formula ILIKE 'na%'": "ae",
    "k_vrh IS NULL": "e",
    "k_vrh IS NOT NULL": "abcd",
    "prototype IS NULL": "e",
    "'Ti' = ANY(elements)": "bc",
    "elements @> ARRAY['Ti', 'O']": "b",
    "elements @> '{Ti, O}'": "b",
    "elements <@ ARRAY['Ti', 'N', 'W']": "cd",
    "elements && ARRAY['O', 'N']": "bc",
    "elements = ARRAY['W']": "d",
    "formula = ANY(ARRAY['W', 'NaF'])": "de",
    "k_vrh / 2 > 100 AND -efermi < 0": "bd",
    "k_vrh - 200 - 10 > 0 - 8": "bcd",
    "efermi * (1 + 1) = 2": "a",
    "efermi > -3 AND efermi < -1.5e0": "c",
    "n_sites / 4 = 0.5": "abcde",  # as a person reads it, not as integers
    "space_group_number = 225": "abcd",
    "formula = 'W' -- a comment": "d",
    "formula = 'it''s; DROP TABLE crystals'": "",
    "TRUE": "abcde",
    "NOT TRUE": "",
}


def test_filters_agree_with_sql(session: Session, materials: None) -> None:
    query = select(view_materials().c.source_id).order_by(view_materials().c.source_id)
    assert {where: "".join(session.scalars(query.where(parse(where)))) for where in FOUND} == FOUND


REFUSED = [
    ("lower(formula) = 'w'", "function call"),
    ("pg_sleep(10) IS NULL", "function call"),
    ("current_user = 'postgres'", "function call"),
    ("formula ~ '(a+)+$'", "is the operator ~, not a condition"),
    ("formula !~ 'a'", "is the operator ~, not a condition"),
    ("formula ~* 'a'", "is the operator ~*, not a condition"),
    ("formula SIMILAR TO 'a'", "is the operator SIMILAR TO, not a condition"),
    ("k_vrh IN (SELECT 1)", "sub-query"),
    ("k_vrh > (SELECT 1)", "sub-query"),
    ("EXISTS (SELECT 1)", "sub-query"),
    ("k_vrh::text = '1'", "cast"),
    ("CAST(k_vrh AS text) = '1'", "cast"),
    ("formula = date '2020-01-01'", "cast"),
    ("k_vrh > %s", "placeholder"),
    ("k_vrh > :x", "placeholder"),
    ("k_vrh > $1", "placeholder"),
    ("k_vrh > ?", "placeholder"),
    ("SELECT 1", "cannot be parsed near 'SELECT'"),
    ("1 = 1; DROP TABLE crystals", "cannot be parsed near 'DROP'"),
    ("1 = 1; -- \nDROP TABLE crystals", "cannot be parsed near ';'"),
    ("k_vrh = 1) OR (1 = 1", "cannot be parsed near ')'"),
    ("k_vrh > 1 LIMIT 1", "cannot be parsed near 'LIMIT'"),
    ("k_vrh > 1 UNION SELECT 1", "cannot be parsed near 'UNION'"),
    ("k_vrh >", "cannot be parsed"),
    ("formula = 'a", "cannot be parsed"),
    ("", "empty"),
    ("  \n", "empty"),
    ("-- nothing", "cannot be parsed"),
    ("formula = $$W$$", "RawString"),
    ("formula = E'W'", "ByteString"),
    ("formula = N'W'", "National"),
    ("formula || 'a' = 'Wa'", "operator ||"),
    ("formula = 'a' 'b'", "function call"),
    ("formula COLLATE \"C\" = 'W'", "operator COLLATE"),
    ("elements[1] = 'W'", "Bracket"),
    ("k_vrh % 2 = 0", "operator %"),
    ("k_vrh ^ 2 > 1", "operator ^"),
    ("CASE WHEN TRUE THEN TRUE END", "CASE"),
    ("k_vrh BETWEEN SYMMETRIC 2 AND 1", "Between"),
    ("formula LIKE 'a' ESCAPE 'b'", "Escape"),
    ("k_vrh IS DISTINCT FROM 1", "NullSafeNEQ"),
    ("k_vrh IS TRUE", "IS is for NULL"),
    ("k_vrh = NULL", "write IS NULL"),
    ("(k_vrh, efermi) = (1, 2)", "Tuple"),
    ("1 < k_vrh < 3", "'LT', not a value"),
    ("k_vrh", "not a condition"),
    ("'W'", "not a condition"),
    ("v_materials.k_vrh > 1", "not allowed in this form"),
    ("pg_authid.rolpassword LIKE '%'", "not allowed in this form"),
    ("k_vhr > 1", "did you mean 'k_vrh'"),
    ('"K_VRH" > 1', "no column 'K_VRH'"),
    ("ctid = '(0,1)'", r"no column 'ctid' in v_materials; `ecdreg db shell -c '\d v_materials'` lists them"),
    ("k_vrh > NaN", "no column 'nan'"),
    ("k_vrh > 'NaN'", "compare values of one kind"),
    ("formula = 3", "compare values of one kind"),
    ("elements = 'Ti'", "compare values of one kind"),
    ("'Ti' = ANY(formula)", "compare values of one kind"),
    ("3 = ANY(elements)", "compare values of one kind"),
    ("k_vrh LIKE '2%'", "compare values of one kind"),
    ("formula IN ('W', 3)", "compare values of one kind"),
    ("k_vrh BETWEEN 1 AND 'x'", "compare values of one kind"),
    ("formula + 1 = 2", "compare values of one kind"),
    ("elements @> ARRAY[1]", "not a text in a list"),
    ("formula IN ()", "empty list"),
    ("k_vrh < 1e999", "too large"),
    ("k_vrh > " + "9" * 400, "too large"),
    ("k_vrh > 1" + " AND k_vrh > 1" * 1000, "characters"),
    ("(" * 1500 + "k_vrh > 1" + ")" * 1500, "nested too deeply"),
    ("NOT " * 900 + "TRUE", "nested too deeply"),
    ("k_vrh > 1" + "+1" * 1500, "nested too deeply"),
    ("formula = 'a\x00b'", "control character"),
    ("formula = '\ud800'", "control character"),
    ("\x1b[2J", "control character"),
]


@pytest.mark.parametrize(("where", "message"), REFUSED, ids=[ascii(where[:30]) for where, _ in REFUSED])
def test_other_constructs_are_refused_by_name(where: str, message: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(where)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_long_chains_are_accepted(session: Session, materials: None) -> None:
    where = "formula = 'W'" + " OR k_vrh > 900" * 200
    assert session.scalars(select(view_materials().c.source_id).where(parse(where))).all() == ["d"]


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(words: str) -> None:
    with contextlib.suppress(QueryError):
        parse(words)


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30))
def test_texts_never_become_sql(words: str) -> None:
    quoted = words.replace("'", "''")
    compiled = parse(f"formula = '{quoted}'").compile(dialect=postgresql.dialect())
    assert list(compiled.params.values()) == [words]
    assert str(compiled) == "v_materials.formula = %(param_1)s::VARCHAR"


def test_columns_are_those_of_the_view(session: Session) -> None:
    query = text("SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'v_materials'")
    there = dict(session.execute(query).all())
    assert there.keys() == columns().keys()
    assert all(there[name] in KINDS[kind] for name, kind in columns().items())


def test_the_parser_is_imported_only_for_a_filter() -> None:
    code = "import sys, registry.search.filters; sys.exit('sqlglot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
