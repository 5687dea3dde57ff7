from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from registry.crystals import WrittenCrystal
from registry.search.filters import parse
from registry.search.fusion import check_words
from registry.search.text import MEANINGS, interpret, without_negated_words


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
    assert where("I search In no cubic crystal As He did") == [], "English words are not elements"
    assert where("TIN tin Tin") == ["'Sn' = ANY(elements)"]
    assert where("NotAFormula Xx9 ((") == []


def test_words_are_negated_one_by_one() -> None:
    assert where("not magnetic oxide") == [
        "NOT (total_magnetization >= 0.5 OR total_magnetization <= -0.5)",
        "'O' = ANY(elements)",
    ]
    assert where("non-insulating, without oxygen") == ["NOT (band_gap >= 3)", "NOT ('O' = ANY(elements))"]
    assert where("not a metal") == where("non-metal") == [f"NOT ({MEANINGS['metal'][0]})"]
    assert where("not very hard") == ["NOT (g_vrh >= 100)"]
    assert where("no Pb or Cd, hard") == [
        "NOT (elements @> ARRAY['Pb'])",
        "NOT (elements @> ARRAY['Cd'])",
        "g_vrh >= 100",
    ]
    assert (
        where("without any oxygen") == where("oxygen-free") == where("free of oxygen") == ["NOT ('O' = ANY(elements))"]
    )
    assert where("hard or magnetic")[0] == "g_vrh >= 100"


def test_space_groups_and_lattices_are_not_elements() -> None:
    assert where("F-43m, Pm-3m, Fm-3m, Ia-3d, P6_3/mmc, BCC or fcc") == []
    assert where("Fe-based, Cr-rich") == ["elements @> ARRAY['Fe']", "elements @> ARRAY['Cr']"]


def test_negated_words_are_left_out_and_nothing_else() -> None:
    assert without_negated_words("cubic, not magnetic, rock-salt") == "cubic, rock-salt"
    described = "bond lengths of 2.8 Å, NaCl in Fm-3m (225)"
    assert without_negated_words(described) == described
    assert without_negated_words("2.8") == "2.8"
    assert without_negated_words("not magnetic") == ""
    assert without_negated_words("oxides without Pb or Cd that are hard") == "oxides that are hard"
    assert without_negated_words("lead-free perovskite") == "perovskite"


def test_a_halide_without_a_gap_is_not_a_metal(session: Session, add_crystal: Callable[..., WrittenCrystal]) -> None:
    for ident, formula, gap in (("t-1", "K2WCl6", 0.0), ("t-2", "W", 0.0), ("t-3", "WO3", 1.0), ("t-4", "Nb", None)):
        add_crystal(ident, formula=formula, densities=False, values={} if gap is None else {"band_gap": gap})
    found = check_words(session, interpret("metallic"))
    assert [ident for (_, ident), one in sorted(found.items()) if one.met] == ["t-2"]
    assert [ident for (_, ident), one in found.items() if one.unknown] == ["t-4"]


def test_repeated_meanings_are_found_once() -> None:
    assert [m.word for m in interpret("metal metallic METAL")] == ["metal"]


def test_a_summary_has_the_bound_and_its_reason() -> None:
    (hard,) = interpret("hard")
    assert hard.summary.startswith("hard: g_vrh >= 100 (15 GPa and more; Vickers hardness")
