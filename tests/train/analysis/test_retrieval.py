"""Retrieval is scored on a registry whose neighbours are known."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from registry.crystals import CrystalData, PropertyData, write_crystal
from registry.database import session_scope
from registry.encoders import EncoderKey, ensure_encoder, write_embeddings
from registry.errors import ConfigurationError, NotFoundError
from registry.files.grids import GridStore
from registry.provenance import finish_run, start_run
from train.analysis.retrieval import CHANCE, ELMD, MAGPIE, evaluate_search

SEED = 0
"""Of a split that leaves no fold empty."""

FORMULAS = ("MgO", "CaO", "SrO", "BaO", "TiC", "ZrC", "HfC", "VC")


@pytest.fixture
def line(engine: Engine, tmp_path: object) -> Engine:
    """Eight crystals whose bulk moduli are 0, 10, .. 70 + 50 GPa; under ``sorted`` the next in it is the nearest."""
    grids = GridStore((tmp_path / "grids").as_uri())
    with session_scope(engine) as session:
        run = start_run(session, source="test", source_release=None, parameters={})
        revisions = []
        for i, formula in enumerate(FORMULAS):
            data = CrystalData(
                source="test", source_id=f"t-{i}", formula=formula, structure={"sites": []}, space_group_number=225,
                space_group_symbol="Fm-3m", prototype="first" if i < 4 else "second", n_sites=2, volume=20.0,
                content_sha256=f"{i:064x}", material_key=f"t-{i}",
                properties=(PropertyData("k_vrh", 50.0 + 10 * i, "GGA"),),
            )  # fmt: skip
            revisions.append(write_crystal(session, data, run_id=run.id, grids=grids).revision_id)
        finish_run(session, run)
        angles = 0.1 * np.arange(8)
        for name, turned in (("sorted", angles), ("shuffled", angles[[0, 4, 1, 5, 2, 6, 3, 7]])):
            encoder = ensure_encoder(
                session,
                EncoderKey(weights_sha256=f"{len(name):064x}", preprocessing={}),
                name=name,
                modality="image",
                dim=2,
            )
            rows = [(r, [np.cos(a), np.sin(a)], "0" * 64) for r, a in zip(revisions, turned, strict=True)]
            write_embeddings(session, encoder, rows)
    return engine


def test_neighbours_beside_composition_and_chance(line: Engine) -> None:
    with Session(line) as session:
        scores = {s.measure: s for s in evaluate_search(session, k=1)}
    assert list(scores) == [CHANCE, MAGPIE, ELMD, "shuffled", "sorted"]
    best = scores["sorted"]
    assert (best.n_queries, best.n_pool, best.queries, best.supervised) == (8, 8, "all crystals", False)
    # Each has its neighbour 10 GPa away; of eight, equals are taken in their order.
    assert best.differences == {"k_vrh": pytest.approx(10.0)}
    assert best.prototype >= 7 / 8
    assert scores["shuffled"].differences["k_vrh"] == pytest.approx(20.0), "neighbours are two places apart"
    pairs = [abs(i - j) * 10 for i in range(8) for j in range(8) if i != j]
    assert scores[CHANCE].differences["k_vrh"] == pytest.approx(np.mean(pairs))
    assert scores[CHANCE].prototype == pytest.approx(3 / 7)
    assert scores[CHANCE].errors["k_vrh"] > 0
    assert scores[ELMD].prototype == 7 / 8, "oxides lie by oxides, carbides by carbides; magnesium is far from calcium"


def test_fused_encoders(line: Engine) -> None:
    with Session(line) as session:
        scores = evaluate_search(session, encoders=["sorted"], fused=[["sorted", "shuffled"]], k=2)
    (fused,) = [s for s in scores if s.measure == "shuffled + sorted"]
    places = {"sorted": np.arange(8), "shuffled": np.array([0, 4, 1, 5, 2, 6, 3, 7])}
    differences = []
    for i in range(8):
        score = np.zeros(8)
        for place in places.values():
            score += 1 / (60 + np.argsort(np.argsort(np.abs(place - place[i]), kind="stable"), kind="stable"))
        score[i] = 0.0
        differences.append(np.mean(10.0 * np.abs(np.argsort(-score, kind="stable")[:2] - i)))
    assert fused.differences["k_vrh"] == pytest.approx(np.mean(differences), abs=2.5), "to ties"


def test_queries_of_trained_encoders_are_the_holdout(line: Engine) -> None:
    """The queries of a tower are the two crystals of the holdout of its split."""
    from registry.files.artifacts import StoredArtifact
    from registry.model_store import add_model_version, start_experiment
    from registry.models import Encoder
    from registry.splits.creation import SplitRule, create_split

    with session_scope(line) as session:
        split = create_split(
            session,
            "s",
            target="k_vrh",
            rule=SplitRule(seed=SEED, n_folds=2, holdout=0.4, recipe=None, text_level=None),
        )
        run = start_experiment(
            session, name="image", target="k_vrh", kind="image", config={}, seed=0, split_id=split.id
        )
        version = add_model_version(
            session, run, fold=None, phase="readout", n_train=5, scalers={}, artifact=StoredArtifact("a", "0" * 64)
        )
        encoder = session.query(Encoder).filter_by(name="sorted").one()
        encoder.model_version_id = version.id
    with Session(line) as session:
        held = session.scalar(text("SELECT count(*) FROM split_members WHERE subset = 'holdout'"))
        (score,) = [s for s in evaluate_search(session, encoders=["sorted"]) if s.measure == "sorted"]
        assert 0 < held < 8
        assert (score.n_queries, score.n_pool, score.supervised) == (held, 8, True)
        assert score.queries == "holdout of s for k_vrh"
        together = evaluate_search(session, encoders=["shuffled"], fused=[["sorted", "shuffled"]])
        fused = next(s for s in together if s.measure == "shuffled + sorted")
        assert (fused.n_queries, fused.supervised) == (held, True)


def test_invalid_evaluations_raise(line: Engine) -> None:
    with Session(line) as session:
        with pytest.raises(ConfigurationError, match="k is 0"):
            evaluate_search(session, k=0)
        with pytest.raises(NotFoundError, match="no encoder 'sorte'; did you mean"):
            evaluate_search(session, encoders=["sorte"])
        session.execute(text("DELETE FROM embeddings"))
        with pytest.raises(NotFoundError, match="no encoder has vectors"):
            evaluate_search(session)


def test_queries_are_drawn_at_random(line: Engine) -> None:
    with Session(line) as session:
        one = evaluate_search(session, encoders=["sorted"], limit=3, seed=1)
        again = evaluate_search(session, encoders=["sorted"], limit=3, seed=1)
    assert one == again
    assert {s.n_queries for s in one} == {3}
