"""Fixtures of rock salts with real structures and texts, and of a composition baseline trained on them."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from registry.crystals import CrystalData, DescriptionData, PropertyData, write_crystal
from registry.database import session_scope
from registry.files.grids import GridStore
from registry.provenance import finish_run, start_run
from registry.settings import Settings
from registry.splits.creation import SplitRule, create_split

__all__ = ["SALTS", "SUSPECT", "UNKNOWN", "baseline", "bulk_modulus", "salts"]

# Lattice parameters [Å], near the measured ones; bulk moduli of halides are small and of oxides large.
SALTS = {
    "LiF": 4.03, "NaF": 4.63, "KF": 5.34, "LiCl": 5.14, "NaCl": 5.64, "KCl": 6.29, "LiBr": 5.50, "NaBr": 5.97,
    "KBr": 6.60, "MgO": 4.21, "CaO": 4.81, "SrO": 5.16, "BaO": 5.52, "MgS": 5.20, "CaS": 5.69, "SrS": 6.02,
    "TiC": 4.33, "ZrC": 4.70, "HfC": 4.64, "TiN": 4.24, "RbF": 5.64, "RbCl": 6.58, "RbBr": 6.85, "CsF": 6.01,
    "MgSe": 5.45, "CaSe": 5.91, "SrSe": 6.23, "BaS": 6.39, "ScN": 4.50, "VC": 4.17, "VN": 4.14, "ZrN": 4.58,
    "NbC": 4.47,
}  # fmt: skip
UNKNOWN = "HfC"
SUSPECT = "KBr"


def bulk_modulus(formula: str) -> float:
    return 1.2e4 / SALTS[formula] ** 3 * (1.8 if formula.endswith(("C", "N")) else 1.0 if "O" in formula else 0.5)


@pytest.fixture
def salts(engine: Engine, home: Path) -> list[str]:
    """Rock salts with texts; HfC's bulk modulus is not known, that of KBr impossible."""
    from pymatgen.core import Lattice, Structure

    grids = GridStore((home / "grids").as_uri())
    with session_scope(engine) as session:
        run = start_run(session, source="salt", source_release=None, parameters={})
        for i, (formula, a) in enumerate(SALTS.items()):
            elements = [formula[: -1 - formula[-1].islower()], formula[-1 - formula[-1].islower() :]]
            cell = Lattice.from_parameters(a / 2**0.5, a / 2**0.5, a / 2**0.5, 60, 60, 60)
            structure = Structure(cell, elements, [[0, 0, 0], [0.5, 0.5, 0.5]])
            values = {"efermi": 0.5 * i, "formation_energy_per_atom": -0.1 * i}
            if formula != UNKNOWN:
                values["k_vrh"] = -10.0 if formula == SUSPECT else bulk_modulus(formula)
            data = CrystalData(
                source="salt", source_id=f"s-{i}", formula=formula, structure=structure.as_dict(),
                space_group_number=225, space_group_symbol="Fm-3m", prototype="AB-cF8-225", n_sites=2,
                volume=float(structure.volume), content_sha256=f"{i:064x}",
                properties=tuple(PropertyData(name, value, "GGA") for name, value in values.items()),
                descriptions=(DescriptionData("keywords", f"{formula}: a rock salt", "test"),),
            )  # fmt: skip
            write_crystal(session, data, run_id=run.id, grids=grids)
        finish_run(session, run)
    return list(SALTS)


@pytest.fixture
def baseline(engine: Engine, settings: Settings, salts: list[str]) -> None:
    """A composition baseline for the bulk modulus and the formation energy."""
    from train.config.schema import BaselineConfig
    from train.experiments.context import ExperimentContext
    from train.experiments.run import run_experiment

    for target in ("k_vrh", "formation_energy_per_atom"):
        with session_scope(engine) as session:
            create_split(
                session, "default", target=target, rule=SplitRule(holdout=0.15, n_folds=3, recipe=None, text_level=None)
            )
        config = BaselineConfig(target=target, name="magpie", n_estimators=20)
        run_experiment(ExperimentContext.open(engine, settings), config, split="default")
