"""Search by constraint and proposals, on rock salts with real structures and a composition baseline."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from registry.errors import ConfigurationError
from tests.conftest import Invoke
from tests.rock_salts import SALTS, SUSPECT, UNKNOWN, bulk_modulus

# ------------------------------------------------------------------------------- search


def test_known_values_without_any_model(invoke: Invoke, salts: list[str]) -> None:
    done = invoke("search", "--constraint", "k_vrh=100:", "--objective", "efermi=min", "--json")
    assert done.exit_code == 0
    rows = json.loads(done.stdout)
    met = [row for row in rows if row["meets"]]
    expected = [f for f in salts if f not in (UNKNOWN, SUSPECT) and bulk_modulus(f) >= 100]
    assert sorted(row["formula"] for row in met) == sorted(expected)
    assert [row["meets"] for row in rows] == sorted((row["meets"] for row in rows), reverse=True)
    fermi = [row["values"]["efermi"]["value"] for row in met]
    assert fermi == sorted(fermi)
    assert {row["values"]["k_vrh"]["from"] for row in rows} == {"known"}
    assert all(row["chance"] == float(row["meets"]) for row in rows)
    assert "there is no model of k_vrh; `ecdreg train baseline --target k_vrh` trains one" in done.stderr
    assert "2 crystals that could meet the constraints have no k_vrh and are excluded" in done.stderr


def test_unknown_values_are_predicted_and_marked(invoke: Invoke, baseline: None) -> None:
    done = invoke("search", "--constraint", "k_vrh=100:", "-k", 40, "--json")
    assert done.exit_code == 0
    by_formula = {row["formula"]: row for row in json.loads(done.stdout)}
    value = by_formula[UNKNOWN]["values"]["k_vrh"]
    assert (value["from"], value["model"], value["unit"]) == ("predicted", "baseline-magpie:k_vrh@1", "GPa")
    assert value["lower"] < value["value"] < value["upper"]
    assert 0 < by_formula[UNKNOWN]["chance"] < 1
    suspect = by_formula[SUSPECT]["values"]["k_vrh"]
    assert (suspect["from"], suspect["value"] > 0) == ("predicted", True), "a suspect value is not believed"
    places = {formula: row["rank"] for formula, row in by_formula.items()}
    assert by_formula[UNKNOWN]["meets"]
    assert all(places[f] < places[UNKNOWN] for f in by_formula if by_formula[f]["meets"] and f != UNKNOWN)
    assert "k_vrh is predicted by baseline-magpie:k_vrh@1 where it is not known (RMSE" in done.stderr
    table = invoke("search", "--constraint", "k_vrh=100:", "-k", 40).stdout
    line = next(line for line in table.splitlines() if " HfC " in line)
    assert line.rstrip().endswith("predicted")
    only = json.loads(invoke("search", "--constraint", "k_vrh=100:", "--known-only", "-k", 40, "--json").stdout)
    assert UNKNOWN not in {row["formula"] for row in only}


def test_search_by_elements_as_csv(invoke: Invoke, salts: list[str]) -> None:
    done = invoke("search", "--objective", "k_vrh=max", "--elements-any", "Ti, Zr", "--without", "N", "--csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["formula"], row["k_vrh_from"]) for row in rows] == [("TiC", "known"), ("ZrC", "known")]
    both = invoke("search", "--objective", "k_vrh=max", "--elements-all", "Mg,O", "--json")
    assert [row["formula"] for row in json.loads(both.stdout)] == ["MgO"]
    where = invoke("search", "--objective", "k_vrh=max", "--where", "formula LIKE 'Na%'", "-k", 1, "--json")
    assert json.loads(where.stdout)[0]["formula"] == "NaF"
    nothing = invoke("search", "--constraint", "k_vrh=1:2", "--elements-all", "W")
    assert (nothing.exit_code, nothing.stdout) == (0, "")


def test_objectives_make_a_pareto_front(invoke: Invoke, salts: list[str]) -> None:
    done = invoke(
        "search", "--objective", "efermi=max", "--objective", "formation_energy_per_atom=max", "-k", 40, "--json"
    )
    rows = json.loads(done.stdout)
    # The two are at odds in every pair of crystals: no crystal dominates another.
    assert {row["front"] for row in rows} == {1}
    one = json.loads(invoke("search", "--objective", "efermi=max", "-k", 40, "--json").stdout)
    assert [row["front"] for row in one] == list(range(1, 34))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "there is no constraint and no objective"),
        (("--constraint", "k_vhr=1:2"), "did you mean 'k_vrh'?"),
        (("--constraint", "k_vrh=300:250"), "did you mean k_vrh=250:300?"),
        (("--constraint", "k_vrh=1:2); DROP TABLE crystals; --"), "is not a number"),
        (("--constraint", "k_vrh=nan:"), "is not a number"),
        (("--constraint", "k_vrh=1:2", "--constraint", "k_vrh=2:3"), "two constraints are on k_vrh"),
        (("--objective", "k_vrh=best"), "is not a number"),
        (("--objective", "k_vrh=max", "--elements-any", "Xx"), "'Xx' is not an element"),
        (("--objective", "k_vrh=max", "--elements-any", "'; DROP TABLE crystals"), "is not an element"),
        (("--objective", "k_vrh=max", "--elements-any", "Ti", "--without", "Ti"), "required and excluded"),
        (("--objective", "k_vrh=max", "-k", "0"), "-k"),
        (("--objective", "k_vrh=max", "--json", "--csv"), "not both"),
        (("--objective", "k_vrh=max", "--where", "1; DROP TABLE crystals"), "filter"),
    ],
)
def test_invalid_searches_are_refused(
    invoke: Invoke, crystals: dict[str, int], arguments: tuple[str, ...], named: str
) -> None:
    done = invoke("search", *arguments)
    assert done.exit_code in (1, 2)
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert named in done.stderr


# ------------------------------------------------------------------------------ propose


def test_proposals_are_new_predicted_and_exported(invoke: Invoke, baseline: None, tmp_path: Path) -> None:
    from pymatgen.core import Structure

    from ingest.slices.space_groups import space_group

    folder = tmp_path / "new"
    done = invoke("propose", "--constraint", "k_vrh=50:", "--objective", "k_vrh=max", "-k", 5, "-o", folder, "--json")
    assert done.exit_code == 0
    for work in ("replacements: 0 of 33", "loading the models ...", "compositions: 0 of", "structures: 5 of 5"):
        assert work in done.stderr, "what takes a second or more is reported"
    rows = json.loads(done.stdout)
    assert len(rows) == 5
    assert not {row["formula"] for row in rows} & set(SALTS)
    for row in rows:
        assert row["prototype"] == "AB-cF8-225"
        assert {r["old"] for r in row["replaced"]} <= set(re.findall("[A-Z][a-z]?", "".join(SALTS)))
        value = row["values"]["k_vrh"]
        assert value["from"] == "predicted"
        assert value["lower"] <= value["value"] <= value["upper"]
        assert 0 <= row["chance"] <= 1
        assert row["out_of_domain"] in (True, False)
        assert row["described"] is False, "no model here reads texts"
    manifest = list(csv.DictReader(io.StringIO((folder / "manifest.csv").read_text(encoding="utf-8"))))
    assert [m["formula"] for m in manifest] == [row["formula"] for row in rows]
    for m, row in zip(manifest, rows, strict=True):
        made = Structure.from_file(folder / m["file"])
        assert made.composition.reduced_formula == row["formula"]
        assert space_group(made).number == 225
        per_formula = made.volume / (made.composition.num_atoms / 2)
        assert per_formula == pytest.approx(row["volume_per_formula"], rel=1e-3)
    table = invoke("propose", "--like", "s-9", "--objective", "formation_energy_per_atom=min", "-k", 3)
    assert table.exit_code == 0
    assert "MgO: " in table.stdout
    assert "volumes of AB-cF8-225, ions of equal charge: fit to" in table.stderr
    assert "the first that can read the crystal counts" in table.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("--like", "s-99"), 1, "no crystal 's-99'"),
        (("--prototype", "AB-cF8-216"), 1, "there are: AB-cF8-225"),
        (("--like", "s-1", "--prototype", "A-cF4-225"), 1, "leave out one of the two"),
        (("--constraint", "k_vhr=1:"), 2, "did you mean 'k_vrh'"),
        (("--constraint", "band_gap=1:"), 1, "there is no model of band_gap that reads the composition only"),
        (("--replace", "3"), 2, "--replace"),
        (("-k", "0"), 2, "-k"),
    ],
)
def test_invalid_proposals_are_refused(
    invoke: Invoke, salts: list[str], arguments: tuple[str, ...], code: int, named: str
) -> None:
    done = invoke("propose", *arguments)
    assert (done.exit_code, done.stdout) == (code, "")
    assert named in done.stderr


def test_proposals_without_a_new_composition(invoke: Invoke, salts: list[str], tmp_path: Path) -> None:
    done = invoke("propose", "--elements-all", "W,Os,Ir,Pt", "-o", tmp_path / "none")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "no composition is new" in done.stderr
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert "cannot be made a folder" in invoke("propose", "-o", blocked / "new").stderr


def test_filters_of_elements(session: Session) -> None:
    from train.discovery.property_search import Elements

    chosen = Elements(("Ti", "Zr"), ("O",), ("Pb",))
    assert chosen.allow(["O", "Ti"])
    assert not chosen.allow(["O", "Mg"])
    assert not chosen.allow(["Ti", "N"])
    assert not chosen.allow(["O", "Pb", "Ti"])
    with pytest.raises(ConfigurationError, match="not an element"):
        Elements(("TiO",))
