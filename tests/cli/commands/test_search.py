"""``ecdreg search``: known and predicted values of rock salts, with a composition baseline."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.conftest import Invoke
from tests.rock_salts import SUSPECT, UNKNOWN, bulk_modulus

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
