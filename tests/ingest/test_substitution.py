from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ingest.slices.space_groups import space_group
from ingest.substitution import IONIC, METALLIC, Parent, Volumes, as_crystal, propose, volumes_of, write_cif
from registry.errors import InputError
from registry.formulas import composition_key


def rock_salt(formula: str, elements: tuple[str, str], a: float) -> Parent:
    from pymatgen.core import Lattice, Structure

    structure = Structure(Lattice.cubic(a) , [*[elements[0]] * 4, *[elements[1]] * 4],
                          [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5],
                           [0.5, 0.5, 0.5], [0, 0, 0.5], [0, 0.5, 0], [0.5, 0, 0]])  # fmt: skip
    return Parent(f"test:{formula}", formula, "AB-cF8-225", structure.as_dict(), 225, "Fm-3m")


MGO = rock_salt("MgO", ("Mg", "O"), 4.21)
TIC = rock_salt("TiC", ("Ti", "C"), 4.33)


def test_ions_are_replaced_by_ions_of_the_same_charge() -> None:
    found = {one.formula: one for one in propose([MGO], [MGO], known=set())}
    assert {"CaO", "NiO", "MgS"} <= set(found), "what chemistry does itself"
    assert not {"NaO", "AlO", "MgF", "MgN", "MgMg"} & set(found), "what is not neutral"
    assert {one.rule for one in found.values()} == {IONIC}
    assert all(one.prototype == "AB-cF8-225" and 0 < one.likeness <= 1 for one in found.values())


def test_metals_are_replaced_by_their_neighbours_on_the_scale() -> None:
    found = {one.formula: one for one in propose([TIC], [TIC], known=set())}
    assert {"HfC", "ZrC", "NbC", "VC"} <= set(found)
    assert "CaC" not in found
    assert {one.rule for one in found.values()} == {METALLIC}
    # Hafnium is one place from titanium, zirconium two.
    assert (found["HfC"].likeness, found["ZrC"].likeness) == (pytest.approx(0.8), pytest.approx(0.6))


def test_what_is_known_is_not_proposed_and_each_comes_once() -> None:
    parents = [MGO, rock_salt("CaO", ("Ca", "O"), 4.81)]
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


def test_elements_that_no_proposal_has() -> None:
    symbols = "".join(one.formula for p in (MGO, TIC) for one in propose([p], [p], known=set(), depth=2))
    for symbol in ("Tc", "Po", "Ra", "He", "Pm"):
        assert symbol not in symbols


def test_volumes_are_sums_of_atoms_where_they_are() -> None:
    atoms = {"A": 10.0, "B": 20.0, "C": 31.0, "D": 42.0}
    amounts = [{x: 1.0, y: 2.0} for x in atoms for y in atoms if x != y]
    named = {"A": "Li", "B": "Na", "C": "K", "D": "Rb"}
    amounts = [{named[k]: n for k, n in one.items()} for one in amounts]
    values = {named[k]: v for k, v in atoms.items()}
    volumes = Volumes(amounts, [sum(n * values[s] for s, n in one.items()) for one in amounts])
    assert volumes.error == pytest.approx(0.0, abs=1e-2)
    assert volumes({"Li": 1.0, "Rb": 1.0}) == pytest.approx(52.0, rel=0.02)
    assert "fit to 12 known crystals" in volumes.describe()
    few = Volumes(amounts[:3], [1.0, 2.0, 3.0])
    assert few.error is None
    assert "too few to fit" in few.describe()


def test_volume_follows_the_radii() -> None:
    (volumes,) = volumes_of([MGO]).values()
    assert volumes.error is None
    made = {one.formula: one.volume_per_formula for one in propose([MGO], [MGO], known=set())}
    assert MGO.volume_per_formula == pytest.approx(4.21**3 / 4)
    assert made["CaO"] > MGO.volume_per_formula
    assert made["MgS"] > MGO.volume_per_formula


def test_a_proposal_is_a_crystal_that_models_read(tmp_path: Path) -> None:
    from pymatgen.core import Structure

    one = next(p for p in propose([TIC], [TIC], known=set()) if p.formula == "ZrC")
    crystal = as_crystal(one)
    assert (crystal.formula, crystal.prototype, crystal.n_sites) == ("ZrC", "AB-cF8-225", 8)
    assert crystal.volume == pytest.approx(4 * one.volume_per_formula)
    assert crystal.descriptions == ()
    made = Structure.from_file(write_cif(one, tmp_path))
    assert space_group(made).prototype == "AB-cF8-225"
    assert made.volume == pytest.approx(4 * one.volume_per_formula, rel=1e-4)
    assert np.allclose(TIC.structure["lattice"]["volume"], 4.33**3), "the parent is left as it was"
    with pytest.raises(InputError, match="cannot be written"):
        write_cif(one, tmp_path / "missing")


@pytest.mark.slow
def test_a_proposal_is_described() -> None:
    one = next(p for p in propose([TIC], [TIC], known=set()) if p.formula == "ZrC")
    texts = {d.text_level: d.text for d in as_crystal(one, texts=True).descriptions}
    assert texts["formula"] == "ZrC"
    assert "Zr-C" in texts["keywords"]
    assert "Rock Salt" in texts["all"] or "Halite" in texts["all"]
