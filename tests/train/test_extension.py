"""A modality, a model kind and a target are each added by one entry, from outside the packages.

The modality and the model kind are those of :mod:`tests.train.added_package`, installed with its entry points.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from ecdreg import Registry
from registry.database import session_scope
from registry.errors import ConfigurationError
from registry.model_store import resolve_model
from registry.properties import PropertyDefinition
from registry.property_store import add_property
from registry.splits.creation import SplitRule, create_split
from tests.train.conftest import SmallRegistry, flat_config, small_crystal
from train.config.kinds import MODEL_KINDS
from train.modalities import MODALITIES
from train.prediction.predictor import Predictor

ROOT = Path(__file__).parents[2]

ENTRY_POINTS = """
[ecdreg.modalities]
cell = tests.train.added_package:CELL

[ecdreg.model_kinds]
median = tests.train.added_package:MEDIAN
"""


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an installed package that has the entry points; the catalogs know them for one test."""
    site = tmp_path / "site"
    about = site / "ecdreg_cells-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: ecdreg-cells\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(site)
    for catalog in (MODALITIES, MODEL_KINDS):
        monkeypatch.setattr(catalog, "_entries", dict(catalog._entries))
        monkeypatch.setattr(catalog, "_entry_points_loaded", False)
    return site


@pytest.fixture
def registry(small: SmallRegistry) -> Registry:
    return Registry(small.engine, small.settings)


@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("regressor", ["gaussian-process", "network"])
def test_an_added_modality_is_trained_and_predicts(registry: Registry, small: SmallRegistry, regressor: str) -> None:
    fields = {"training": small.config("text").training.to_dict()} if regressor == "network" else {}
    result = registry.train("cell", targets=["k_vrh"], split="small", regressors={"cell": regressor}, fields=fields)
    (trained,) = result.experiments
    assert (trained.name, trained.outcome, trained.cv["r2"] > 0.4) == ("cell", "trained", True)
    assert {row.model for row in result.leaderboard} == {"cell", "baseline-mean", "baseline-magpie"}
    with Session(small.engine) as session:
        (model,) = resolve_model(session, "cell:k_vrh")
        session.expunge_all()
        predictor = Predictor.load(session, small.settings, model)
        assert session.scalar(text("SELECT count(*) FROM encoders WHERE name = 'powers' AND modality = 'cell'")) == 1
    stored = predictor.predict_registered(small.engine, [small.revisions["mp-3"], small.revisions["mp-4"]])
    files = predictor.predict([small_crystal(2), small_crystal(3)])
    np.testing.assert_allclose([p.value for p in files], [p.value for p in stored], rtol=1e-6)
    rows = registry.predict("cell:k_vrh", ["mp-3", "mp-4"])
    pairs = zip(rows, stored, strict=True)
    held_out = [(row.predicted, one.value) for row, one in pairs if row.subset == "holdout"]
    assert held_out
    assert all(predicted == pytest.approx(value) for predicted, value in held_out)


@pytest.mark.usefixtures("added")
def test_an_added_modality_is_a_tower_of_a_stack(registry: Registry) -> None:
    options: dict[str, Any] = {"towers": ("cell", "composition"), "regressors": {"cell": "ridge"}}
    result = registry.train("stacked", targets=["k_vrh"], split="small", **options)
    (stack,) = result.experiments
    names = [one.name for one in stack.prerequisites]
    assert names[-2:] == ["composition", "cell"]  # after those of this project
    assert stack.cv["r2"] > 0.4


@pytest.mark.usefixtures("added")
def test_an_added_model_kind_is_trained_tuned_and_predicts(registry: Registry, small: SmallRegistry) -> None:
    result = registry.train("median", targets=["k_vrh"], split="small", fields={"factor": 2.0})
    (trained,) = result.experiments
    assert (trained.outcome, trained.name) == ("trained", "median")
    with Session(small.engine) as session:
        held_out, median = session.execute(
            text(
                "SELECT min(c.source_id) FILTER (WHERE m.subset = 'holdout'),"
                " percentile_cont(0.5) WITHIN GROUP (ORDER BY v.value) FILTER (WHERE m.subset = 'cv')"
                " FROM property_values v JOIN split_members m ON m.revision_id = v.revision_id"
                " JOIN splits s ON s.id = m.split_id JOIN crystal_revisions r ON r.id = v.revision_id"
                " JOIN crystals c ON c.id = r.crystal_id"
                " WHERE v.property = 'k_vrh' AND s.target = 'k_vrh' AND s.name = 'small'"
            )
        ).one()
    (predicted,) = registry.predict("median:k_vrh", [held_out])
    assert predicted.predicted == pytest.approx(2 * median)
    (tuned,) = registry.tune("median", targets=["k_vrh"], split="small", folder=None)
    assert tuned.result.best.to_dict()["factor"] == 1.0
    with pytest.raises(ConfigurationError, match=r"kind is 'tower'; choose from image, text, .*, cell, median"):
        registry.train("tower", targets=["k_vrh"], split="small")


def test_an_added_model_kind_is_a_command(small: SmallRegistry, added: Path, tmp_path: Path) -> None:
    config = tmp_path / "half.toml"
    config.write_text("factor = 0.5\n")
    environment = os.environ | {
        "PYTHONPATH": f"{added}:{ROOT}",
        "ECDREG_HOME": str(small.settings.home),
        "ECDREG_DATABASE_URL": str(small.settings.database_url),
    }
    program = [sys.executable, "-c", "from cli.main import run; run()"]
    arguments = ["train", "median", "--target", "k_vrh", "--split", "small", "--config", str(config), "--quiet"]
    done = subprocess.run([*program, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "median" in done.stdout) == (0, True), done.stderr


def test_an_added_target_is_trained_on_by_name(small: SmallRegistry) -> None:
    hardness = PropertyDefinition(
        "hardness_vickers", "GPa", "Vickers hardness", "Vickers hardness", 0.0, 150.0, "diamond has about 100 GPa"
    )
    add_property(small.engine, hardness)
    with session_scope(small.engine) as session:
        session.execute(
            text(
                "INSERT INTO property_values (revision_id, property, level_of_theory, value)"
                " SELECT revision_id, 'hardness_vickers', level_of_theory, value / 5 FROM property_values"
                " WHERE property = 'k_vrh'"
            )
        )
        create_split(session, "hard", target="hardness_vickers", rule=SplitRule(n_folds=3))
    result = small.run(flat_config("baseline-magpie", "hardness_vickers"), split="hard")
    assert result.cv["r2"] > 0.3
    with Session(small.engine) as session:
        columns = session.execute(text("SELECT hardness_vickers, k_vrh FROM v_materials")).all()
        assert all(row.hardness_vickers == pytest.approx(row.k_vrh / 5) for row in columns)
        unit = session.scalar(text("SELECT unit FROM v_leaderboard WHERE target = 'hardness_vickers'"))
    assert unit == "GPa"
