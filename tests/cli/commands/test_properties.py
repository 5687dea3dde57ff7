"""``ecdreg properties``: a user's property from its definition to the leaderboard."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, text

from ecdreg import Registry
from registry.properties import BUILTIN_PROPERTIES
from tests.conftest import Invoke

if TYPE_CHECKING:
    pass

ADD = ("properties", "add", "hardness_vickers", "--unit", "GPa", "--range", "0:150")
METALS = ("Ti", "Zr", "Hf", "V", "Nb", "Ta", "Cr", "Mo", "W")
ANIONS = ("C", "N", "O")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset folder of 27 formulas with a hardness, one of them impossible."""
    data = tmp_path / "hard"
    data.mkdir()
    with (data / "properties.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "formula", "hardness_vickers", "level_of_theory"))
        for i, (metal, anion) in enumerate((m, a) for m in METALS for a in ANIONS):
            writer.writerow((f"h{i}", f"{metal}{anion}", 900.0 if i == 0 else 5.0 + i, "GGA"))
    return data


def test_a_property_from_its_definition_to_the_leaderboard(
    invoke: Invoke, engine: Engine, folder: Path, cluster_url: str, home: Path
) -> None:
    added = invoke(*ADD)
    assert added.exit_code == 0
    assert "hardness_vickers" in added.stdout
    assert invoke("ingest", "--source", f"{folder}/").exit_code == 0
    with engine.connect() as connection:
        comment = connection.scalar(
            text(
                "SELECT col_description(attrelid, attnum) FROM pg_attribute"
                " WHERE attrelid = 'v_materials'::regclass AND attname = 'hardness_vickers'"
            )
        )
        impossible = connection.execute(
            text("SELECT formula FROM v_materials WHERE 'hardness_vickers' = ANY (suspect)")
        ).all()
    assert comment == "hardness vickers [GPa]; at the preferred level of theory"
    assert impossible == [("TiC",)]

    found = invoke("search", "--want", "hardness_vickers=30:", "--known-only", "--json")
    assert {row["formula"] for row in json.loads(found.stdout) if row["meets"]} == {"WN", "WO"}
    with Registry.open(home=home, url=cluster_url) as registry:
        assert [m["formula"] for m in registry.materials("hardness_vickers BETWEEN 29.5 AND 30.5")] == ["WN"]

    options = ("--target", "hardness_vickers", "--recipe", "none", "--text-level", "none")
    made = json.loads(invoke("split", "create", "formulas", *options, "--folds", 3, "--json").stdout)
    assert made[0]["reasons"] == {"suspect": 1}
    trained = invoke("train", "baseline", "--target", "hardness_vickers", "--split", "formulas", "--json")
    assert trained.exit_code == 0, trained.stderr
    rows = json.loads(invoke("leaderboard", "--target", "hardness_vickers", "--json").stdout)
    assert {(row["model"], row["unit"]) for row in rows} == {("baseline-mean", "GPa"), ("baseline-magpie", "GPa")}
    predicted = json.loads(invoke("predict", "baseline-mean:hardness_vickers", "h5", "--json").stdout)
    assert predicted[0]["unit"] == "GPa"

    refused = invoke("properties", "remove", "hardness_vickers")
    assert refused.exit_code == 2
    assert "is used by 27 values and 1 splits" in refused.stderr


def test_a_folder_that_was_ingested_before_brings_the_new_column(invoke: Invoke, engine: Engine, folder: Path) -> None:
    first = invoke("ingest", "--source", f"{folder}/")
    assert "hardness_vickers" in first.stderr
    assert invoke(*ADD).exit_code == 0
    again = json.loads(invoke("ingest", "--source", f"{folder}/", "--json").stdout)
    assert again["outcomes"]["updated"] + again["outcomes"]["partial"] == 27
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(hardness_vickers) FROM v_materials")) == 27


def test_list_shows_all(invoke: Invoke) -> None:
    invoke(*ADD, "--label", "Vickers hardness", "--lower-bound", "0")
    rows = json.loads(invoke("properties", "list", "--json").stdout)
    assert [row["name"] for row in rows] == [*BUILTIN_PROPERTIES, "hardness_vickers"]
    mine = rows[-1]
    assert (mine["unit"], mine["label"], mine["builtin"], mine["values"]) == ("GPa", "Vickers hardness", False, 0)
    assert (mine["plausible_min"], mine["plausible_max"], mine["lower_bound"]) == (0.0, 150.0, 0.0)
    table = invoke("properties", "list").stdout
    assert "0:150" in table
    assert "0.1:700" in table


def test_remove(invoke: Invoke) -> None:
    invoke(*ADD)
    assert invoke("properties", "remove", "hardness_vickers").stdout == "removed the property hardness_vickers [GPa]\n"
    rows = json.loads(invoke("properties", "list", "--json").stdout)
    assert [row["name"] for row in rows] == list(BUILTIN_PROPERTIES)


def test_a_negative_range(invoke: Invoke) -> None:
    done = invoke("properties", "add", "poisson_ratio", "--unit", "1", "--range", "-1:0.5", "--json")
    assert json.loads(done.stdout)[0]["plausible_min"] == -1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("k_vrh", "--unit", "GPa", "--range", "0:1"), "the property 'k_vrh' is built in"),
        (("select", "--unit", "GPa", "--range", "0:1"), "keyword of SQL"),
        (("hardness", "--unit", "GPa", "--range", "150"), "'150' is not a range; write it as 0:150"),
        (("hardness", "--unit", "GPa", "--range", "150:0"), "the smaller one first"),
        (("hardness", "--unit", "", "--range", "0:1"), "unit"),
        (("hardness", "--range", "0:1"), "missing option '--unit'"),
        (("hardness", "--unit", "GPa"), "missing option '--range'"),
    ],
)
def test_what_cannot_be_added(invoke: Invoke, arguments: tuple[str, ...], message: str) -> None:
    done = invoke("properties", "add", *arguments)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr
