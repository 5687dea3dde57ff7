"""``ecdreg propose``: new crystals by substitution, on rock salts with real structures and a composition baseline."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from tests.conftest import Invoke
from tests.rock_salts import SALTS


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
