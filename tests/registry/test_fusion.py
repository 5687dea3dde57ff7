from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from registry.crystals import WrittenCrystal
from registry.errors import QueryError
from registry.fusion import Hit, depth, fuse, search_descriptions, search_meanings
from registry.words import interpret


def hits(*idents: str) -> list[Hit]:
    return [Hit("test", ident, rank) for rank, ident in enumerate(idents, start=1)]


def test_sum_of_reciprocal_ranks() -> None:
    one, two, *others = fuse({"a": hits("x", "y", "z"), "b": hits("y", "w")}, k=3)
    assert (one.source_id, one.score) == ("y", pytest.approx(1 / 62 + 1 / 61))
    assert (two.source_id, two.score) == ("x", pytest.approx(1 / 61))
    assert set(two.hits) == {"a"}
    assert [o.source_id for o in others] == ["w"]


def test_equals_are_ordered_by_their_ids() -> None:
    same = {"a": [Hit("t", i, 1) for i in ("c", "a", "b")]}
    assert [f.source_id for f in fuse(same, k=10)] == ["a", "b", "c"]
    assert fuse({}, k=1) == []
    with pytest.raises(QueryError, match="k is 0"):
        fuse(same, k=0)


def test_rankings_are_looked_into_beyond_k() -> None:
    assert (depth(1), depth(10), depth(1000), depth(10**6)) == (200, 200, 10_000, 100_000)


@pytest.fixture
def texts(session: Session, add_crystal: Callable[..., WrittenCrystal]) -> None:
    add_crystal("mp-1", formula="MgO", text="MgO is Halite, Rock Salt structured", densities=False)
    add_crystal("mp-2", formula="TiN", text="TiN is a rock", densities=False, values={"k_vrh": 270.0})
    add_crystal("mp-3", formula="WC", text="WC; DROP TABLE crystals", densities=False, values={"k_vrh": 390.0})


def test_descriptions_with_more_of_the_words_first(session: Session, texts: None) -> None:
    found = search_descriptions(session, "rock salts", limit=10)
    assert [(h.source_id, h.rank) for h in found] == [("mp-1", 1), ("mp-2", 2)]
    assert [h.source_id for h in search_descriptions(session, "rock", limit=10, where="k_vrh > 200")] == ["mp-2"]
    assert len(search_descriptions(session, "rock", limit=1)) == 1


@pytest.mark.parametrize("sentence", ["", " ", "the of and", "' OR 1=1 --", "& | ! <->", "%s :x"])
def test_sentences_without_a_word_find_nothing(session: Session, texts: None, sentence: str) -> None:
    assert search_descriptions(session, sentence, limit=10) == []


def test_sql_is_words(session: Session, texts: None) -> None:
    found = search_descriptions(session, "'; DROP TABLE crystals; --", limit=10)
    assert [h.source_id for h in found] == ["mp-3"]


def test_a_ranking_for_each_meaning(session: Session, texts: None) -> None:
    found = search_meanings(session, interpret("stiff tungsten carbide"))
    assert {word: [h.source_id for h in ranking] for word, ranking in found.items()} == {
        "stiff": ["mp-2", "mp-3"],
        "tungsten": ["mp-3"],
        "carbide": ["mp-3"],
    }
    assert search_meanings(session, interpret("tungsten"), where="k_vrh < 300") == {"tungsten": []}
