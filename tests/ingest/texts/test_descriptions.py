"""Text levels derived from a description, and descriptions by robocrystallographer."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.texts.descriptions import TEXT_LEVELS, bond_lengths, robocrys_version, texts_by_level
from registry.errors import InputError

HEUSLER = (
    "TiWMn2 is Heusler structured and crystallizes in the cubic Fm-3m space group. Ti(1) is bonded in a "
    "14-coordinate geometry to six equivalent W(1) and eight equivalent Mn(1) atoms. All Ti(1)-W(1) bond lengths "
    "are 2.97 Å. All Ti(1)-Mn(1) bond lengths are 2.57 Å. W(1) is bonded in a distorted body-centered cubic "
    "geometry to six equivalent Ti(1) and eight equivalent Mn(1) atoms. All W(1)-Mn(1) bond lengths are 2.57 Å."
)


def test_text_levels_contain_increasing_detail() -> None:
    texts = texts_by_level(HEUSLER, "TiMn2W")
    assert list(texts) == TEXT_LEVELS.names() == ["all", "formula", "keywords"]
    assert texts["formula"] == "TiMn2W"
    assert texts["keywords"] == "TiMn2W: Ti-W 2.97 Å, Ti-Mn 2.57 Å, W-Mn 2.57 Å"
    assert texts["all"] == HEUSLER


@pytest.mark.parametrize(
    ("sentence", "bonds"),
    [
        ("All Ti(1)-W(1) bond lengths are 2.97 Å.", [("Ti", "W", "2.97")]),
        ("All Ti(1)–W(1) bond lengths are 2.97 Å.", [("Ti", "W", "2.97")]),
        ("All Ti–O bond lengths are 1.96 Å.", [("Ti", "O", "1.96")]),
        ("The C-H bond length is 1.09 Å.", [("C", "H", "1.09")]),
        ("Both Pt(2)-Pt(2,2) bond lengths are 2.76 Å.", [("Pt", "Pt", "2.76")]),
        ("All Ti4+-O2- bond lengths are 1.96 Å.", [("Ti", "O", "1.96")]),
        ("All Ti(1)4+–O(1)2- bond lengths are 1.96 Å.", [("Ti", "O", "1.96")]),
        ("All Ti⁴⁺–O²⁻ bond lengths are 1.96 Å.", [("Ti", "O", "1.96")]),
        (
            "There are six shorter (2.66 Å) and two longer (2.67 Å) Mg(1)-Rh(1) bond lengths.",
            [("Mg", "Rh", "2.66"), ("Mg", "Rh", "2.67")],
        ),
        (
            "There is one shorter (1.69 Å) and one longer (1.77 Å) B-B bond length.",
            [("B", "B", "1.69"), ("B", "B", "1.77")],
        ),
        (
            "There are a spread of Rb(1)-Cl(1) bond distances ranging from 3.55-3.57 Å.",
            [("Rb", "Cl", "3.55-3.57")],
        ),
        ("There are a spread of Ti–O bond distances ranging from 1.95–2.05 Å.", [("Ti", "O", "1.95-2.05")]),
    ],
)
def test_sentences_about_bonds(sentence: str, bonds: list[tuple[str, str, str]]) -> None:
    assert bond_lengths(sentence) == bonds


def test_bond_occurs_once_in_either_direction() -> None:
    assert bond_lengths("All V(1)-V(2) bond lengths are 2.52 Å. All V(2)-V(1) bond lengths are 2.52 Å.") == [
        ("V", "V", "2.52")
    ]
    assert bond_lengths("All Ti-W bond lengths are 2.97 Å. All W-Ti bond lengths are 2.97 Å.") == [("Ti", "W", "2.97")]


def test_geometry_and_angles_are_not_bonds() -> None:
    text = "Ti(1) is bonded in a 14-coordinate geometry to six W(1) atoms. The corner-sharing octahedra are not tilted."
    assert bond_lengths(text) == []
    assert texts_by_level(text, "Kr")["keywords"] == "Kr"


@given(
    first=st.sampled_from(["Ti", "W", "K", "O", "H"]),
    second=st.sampled_from(["Mn", "S", "F", "Cl"]),
    hundredths=st.integers(50, 999),
    dash=st.sampled_from("-–"),
    label=st.sampled_from(["", "(1)", "(1,2)"]),
)
def test_every_bond_is_found(first: str, second: str, hundredths: int, dash: str, label: str) -> None:
    length = f"{hundredths / 100:.2f}"
    sentence = f"All {first}{label}{dash}{second}{label} bond lengths are {length} Å."
    assert bond_lengths(sentence) == [(first, second, length)]


@pytest.mark.parametrize(("description", "formula"), [("", "NaCl"), (" \n", "NaCl"), ("NaCl is salt.", " ")])
def test_blank_texts_are_refused(description: str, formula: str) -> None:
    with pytest.raises(InputError, match="blank"):
        texts_by_level(description, formula)


def test_version_needs_no_import() -> None:
    code = (
        "import sys; from ingest.texts.descriptions import robocrys_version;"
        "print(robocrys_version(), 'robocrys' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    version, imported = done.stdout.split()
    assert version == robocrys_version()
    assert version.count(".") >= 1
    assert imported == "False"


@pytest.mark.slow
def test_bundled_text_equals_that_of_robocrystallographer_in_another_process() -> None:
    # Its words come out of a set: string hashes, and with them their order, differ from process to process.
    sample = files("ingest") / "sample"
    with (sample / "descriptions.csv").open(encoding="utf-8") as file:
        bundled = {row["id"]: row for row in csv.DictReader(file)}
    assert {row["generator_version"] for row in bundled.values()} == {robocrys_version()}
    code = (
        "import sys; from pathlib import Path; from ingest.readers.structures import read_structure;"
        "from ingest.texts.descriptions import describe; print(describe(read_structure(Path(sys.argv[1]))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(sample / "structures" / "mp-30.cif")],
        env={**os.environ, "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == bundled["mp-30"]["description"]
