from __future__ import annotations

import pytest

from registry.filters import parse
from registry.words import MEANINGS, affirmed, interpret


def where(sentence: str) -> list[str]:
    return [meaning.where for meaning in interpret(sentence)]


@pytest.mark.parametrize("word", MEANINGS)
def test_every_meaning_is_a_filter(word: str) -> None:
    parse(MEANINGS[word][0])
    parse(f"NOT ({MEANINGS[word][0]})")


def test_elements_by_name_symbol_and_formula() -> None:
    assert where("tungsten, Ti and TiN") == [
        "'W' = ANY(elements)",
        "elements @> ARRAY['Ti']",
        "elements @> ARRAY['N', 'Ti']",
    ]
    assert where("I search In no cubic crystal As He did") == [], "English words are no elements"
    assert where("TIN tin Tin") == ["'Sn' = ANY(elements)"]
    assert where("NotAFormula Xx9 ((") == []


def test_words_are_denied_one_by_one() -> None:
    assert where("not magnetic oxide") == [
        "NOT (total_magnetization >= 0.5 OR total_magnetization <= -0.5)",
        "'O' = ANY(elements)",
    ]
    assert where("non-metallic, without oxygen") == ["NOT (band_gap = 0)", "NOT ('O' = ANY(elements))"]
    assert affirmed("cubic, not magnetic, rock-salt") == "cubic rock salt"


def test_each_meaning_once() -> None:
    assert [m.word for m in interpret("metal metallic METAL")] == ["metal"]


def test_the_reason_stands_beside_the_bound() -> None:
    (hard,) = interpret("hard")
    assert hard.told.startswith("hard: g_vrh >= 100 (15 GPa and more; Vickers hardness")
