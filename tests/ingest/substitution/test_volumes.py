"""Volumes of proposed crystals."""

from __future__ import annotations

import pytest

from ingest.substitution import Volumes, propose, volumes_of
from tests.ingest.substitution.parents import MGO


def test_fitted_volumes_are_sums_of_atomic_volumes() -> None:
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


def test_volumes_without_a_fit_follow_the_radii() -> None:
    (volumes,) = volumes_of([MGO]).values()
    assert volumes.error is None
    made = {one.formula: one.volume_per_formula for one in propose([MGO], [MGO], known=set())}
    assert MGO.volume_per_formula == pytest.approx(4.21**3 / 4)
    assert made["CaO"] > MGO.volume_per_formula
    assert made["MgS"] > MGO.volume_per_formula
