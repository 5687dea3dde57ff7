from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from registry.crystals import WrittenCrystal
from registry.errors import QueryError
from registry.search.fusion import (
    Hit,
    WordCheck,
    check_sentence,
    check_words,
    fuse,
    ids_of_best_tiers,
    ranking_depth,
    search_descriptions,
)
from registry.search.text import interpret


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


def test_rankings_are_deeper_than_k() -> None:
    assert (ranking_depth(1), ranking_depth(10), ranking_depth(1000), ranking_depth(10**6)) == (
        200,
        200,
        10_000,
        100_000,
    )


@pytest.fixture
def texts(session: Session, add_crystal: Callable[..., WrittenCrystal]) -> None:
    add_crystal("mp-1", formula="MgO", text="MgO is Halite, Rock Salt structured", densities=False, values={})
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


def test_sql_is_plain_text(session: Session, texts: None) -> None:
    found = search_descriptions(session, "'; DROP TABLE crystals; --", limit=10)
    assert [h.source_id for h in found] == ["mp-3"]


def test_words_are_met_unmet_or_unknown(session: Session, texts: None) -> None:
    found = check_words(session, interpret("stiff tungsten carbide"))
    assert {ident: (one.met, one.unmet, one.unknown) for (_, ident), one in found.items()} == {
        "mp-1": ((), ("tungsten", "carbide"), ("stiff",)),
        "mp-2": (("stiff",), ("tungsten", "carbide"), ()),
        "mp-3": (("stiff", "tungsten", "carbide"), (), ()),
    }
    negated = check_words(session, interpret("not stiff"))
    assert {ident: one.tier for (_, ident), one in negated.items()} == {"mp-1": (0, 0), "mp-2": (0, 1), "mp-3": (0, 1)}
    assert set(check_words(session, interpret("tungsten"), where="k_vrh < 300")) == {("test", "mp-2")}


def test_a_suspect_value_counts_as_unknown(session: Session, add_crystal: Callable[..., WrittenCrystal]) -> None:
    add_crystal("mp-4", formula="NaCl", densities=False, values={"k_vrh": -50.0})
    (one,) = check_words(session, interpret("compressible sodium")).values()
    assert (one.met, one.unmet, one.unknown) == (("sodium",), (), ("compressible",))


def test_more_words_met_come_before_any_rank() -> None:
    words = {
        "best": WordCheck(1, ("hard", "metallic", "tungsten")),
        "two": WordCheck(2, ("hard", "tungsten"), ("metallic",)),
        "two, third unknown": WordCheck(3, ("hard", "tungsten"), (), ("metallic",)),
        "one": WordCheck(4, ("tungsten",), ("hard", "metallic")),
        "none": WordCheck(5, (), ("hard", "metallic", "tungsten")),
    }
    checked = {("test", name): one for name, one in words.items()}
    ranking = {"text": hits("one", "none", "two", "two, third unknown")}
    found = fuse(ranking, k=10, checked=checked)
    assert [one.source_id for one in found] == ["best", "two, third unknown", "two", "one", "none"]
    assert [one.score for one in found] == pytest.approx([0.0, 1 / 64, 1 / 63, 1 / 61, 1 / 62])
    assert ids_of_best_tiers(checked, k=2) == [1, 3]
    assert ids_of_best_tiers(checked, k=10) == [1, 2, 3, 4, 5]
    assert ids_of_best_tiers({}, k=3) == []


@pytest.mark.parametrize("sentence", ["", " \n", "?!", "_ - _", "a" * 2001, "sal\x00t"])
def test_texts_that_cannot_be_searched_for(sentence: str) -> None:
    with pytest.raises(QueryError, match="the text"):
        check_sentence(sentence)
