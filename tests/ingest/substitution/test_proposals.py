"""Proposals of new compositions in known structures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ingest.slices.space_groups import space_group
from ingest.substitution import IONIC, METALLIC, as_crystal, propose, write_cif
from registry.errors import InputError
from registry.formulas import composition_key
from tests.ingest.substitution.parents import MGO, TIC, cubic_rock_salt


def test_ions_are_replaced_by_ions_of_the_same_charge() -> None:
    found = {one.formula: one for one in propose([MGO], [MGO], known=set())}
    assert {"CaO", "NiO", "MgS"} <= set(found), "common oxides and chalcogenides"
    assert not {"NaO", "AlO", "MgF", "MgN", "MgMg"} & set(found), "compounds that are not neutral"
    assert {one.rule for one in found.values()} == {IONIC}
    assert all(one.prototype == "AB-cF8-225" and 0 < one.likeness <= 1 for one in found.values())


def test_metals_are_replaced_by_neighbours_on_pettifors_scale() -> None:
    found = {one.formula: one for one in propose([TIC], [TIC], known=set())}
    assert {"HfC", "ZrC", "NbC", "VC"} <= set(found)
    assert "CaC" not in found
    assert {one.rule for one in found.values()} == {METALLIC}
    # Hafnium is one place from titanium, zirconium two.
    assert (found["HfC"].likeness, found["ZrC"].likeness) == (pytest.approx(0.8), pytest.approx(0.6))


def test_known_crystals_are_not_proposed_and_each_proposal_occurs_once() -> None:
    parents = [MGO, cubic_rock_salt("CaO", ("Ca", "O"), 4.81)]
    known = {(composition_key(p.formula), p.prototype) for p in parents} | {(composition_key("OSr"), "AB-cF8-225")}
    formulas = [one.formula for one in propose(parents, parents, known=known)]
    assert not {"MgO", "CaO", "SrO"} & set(formulas)
    assert len(formulas) == len(set(formulas))
    single = len(formulas)
    two = list(propose(parents, parents, known=known, depth=2))
    assert len(two) > single
    assert all(len(dict(one.replaced)) <= 2 for one in two)
    likeness = [one.likeness for one in two]
    assert likeness == sorted(likeness, reverse=True)


def test_excluded_elements_are_not_proposed() -> None:
    symbols = "".join(one.formula for p in (MGO, TIC) for one in propose([p], [p], known=set(), depth=2))
    for symbol in ("Tc", "Po", "Ra", "He", "Pm"):
        assert symbol not in symbols


def test_proposal_is_converted_to_a_crystal_and_written_as_cif(tmp_path: Path) -> None:
    from pymatgen.core import Structure

    one = next(p for p in propose([TIC], [TIC], known=set()) if p.formula == "ZrC")
    crystal = as_crystal(one)
    assert (crystal.formula, crystal.prototype, crystal.n_sites) == ("ZrC", "AB-cF8-225", 8)
    assert crystal.volume == pytest.approx(4 * one.volume_per_formula)
    assert crystal.descriptions == ()
    made = Structure.from_file(write_cif(one, tmp_path))
    assert space_group(made).prototype == "AB-cF8-225"
    assert made.volume == pytest.approx(4 * one.volume_per_formula, rel=1e-4)
    assert np.allclose(TIC.structure["lattice"]["volume"], 4.33**3), "the parent is not modified"
    with pytest.raises(InputError, match="cannot be written"):
        write_cif(one, tmp_path / "missing")


@pytest.mark.slow
def test_proposal_is_described() -> None:
    one = next(p for p in propose([TIC], [TIC], known=set()) if p.formula == "ZrC")
    texts = {d.text_level: d.text for d in as_crystal(one, texts=True).descriptions}
    assert texts["formula"] == "ZrC"
    assert "Zr-C" in texts["keywords"]
    assert "Rock Salt" in texts["all"] or "Halite" in texts["all"]
