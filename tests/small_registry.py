"""Fixtures of a small registry for commands and the library: 24 crystals, a split, two models, an encoder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from registry.crystals import CrystalData, DensityData, DescriptionData, PropertyData, SliceData, write_crystal
from registry.database import session_scope
from registry.encoders import EncoderKey, ensure_encoder, set_encoder_alias, write_embeddings
from registry.files.artifacts import ArtifactStore
from registry.files.grids import GridStore
from registry.image_recipes import find_recipe
from registry.model_store import (
    EpochRow,
    add_model_version,
    finish_experiment,
    start_experiment,
    write_epochs,
    write_metrics,
    write_predictions,
)
from registry.models import Crystal, CrystalRevision
from registry.provenance import finish_run, start_run
from registry.splits.creation import SplitRule, create_split
from registry.splits.reading import members

__all__ = ["bulk_modulus", "crystal", "crystals", "models", "sha", "vectors"]

METALS = ("Li", "Na", "K", "Mg", "Ca", "Ti", "V", "Zr")
ANIONS = ("O", "S", "Se")
RECIPE = {
    "recipe": "metric",
    "planes": [{"miller": [1, -1, 0], "offset": 0.0}],
    "kinds": ["total", "deformation"],
    "window": [12.0, 12.0],
    "pixels": [24, 24],
}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def bulk_modulus(i: int) -> float:
    """Label [GPa] of crystal i; that of crystal 7 is impossible, so it is suspect."""
    return -50.0 if i == 7 else 40.0 + 9.0 * i


def crystal(i: int, source: str = "test") -> CrystalData:
    metal, anion = METALS[i % len(METALS)], ANIONS[i // len(METALS)]
    formula = f"{metal}{anion}"
    lattice = np.eye(3) * (4.0 + 0.1 * i)
    y, x = np.mgrid[6:-6:24j, -6:6:24j]
    wave = np.cos(2 * np.pi * x / lattice[0, 0]) * np.cos(2 * np.pi * y / lattice[0, 0])
    pixels = np.stack([1.0 + 0.01 * i + wave, 0.1 * wave]).astype(np.float32)
    densities = tuple(
        DensityData(kind, "GGA", np.full((4, 4, 4), value, dtype=np.float32), lattice)
        for kind, value in (("total", 0.5), ("deformation", 0.0))
    )
    return CrystalData(
        source=source,
        source_id=f"mp-{i + 1}",
        formula=formula,
        structure={"lattice": {"matrix": lattice.tolist()}, "sites": []},
        space_group_number=225,
        space_group_symbol="Fm-3m",
        prototype="AB-cF8-225",
        n_sites=8,
        volume=float(lattice[0, 0] ** 3),
        content_sha256=sha(f"{source}-{i}"),
        properties=(
            PropertyData("k_vrh", bulk_modulus(i), "GGA"),
            PropertyData("efermi", 0.3 * i - 1.0, "GGA"),
        ),
        densities=densities,
        slices=(SliceData("metric", RECIPE, "e/Å^3", pixels, (("total", "GGA"), ("deformation", "GGA"))),),
        descriptions=(
            DescriptionData("formula", formula, "test"),
            DescriptionData("keywords", f"{formula}: {metal}-{anion} {2 + 0.05 * i:.2f} Å", "test"),
            DescriptionData("all", f"{formula} is Halite, <Rock Salt> structured.", "test"),
        ),
    )


@pytest.fixture
def crystals(engine: Engine, home: Path) -> dict[str, int]:
    """24 crystals of source ``test``; revision by id."""
    grids = GridStore((home / "grids").as_uri())
    with session_scope(engine) as session:
        run = start_run(session, source="test", source_release=None, parameters={})
        for i in range(24):
            write_crystal(session, crystal(i), run_id=run.id, grids=grids)
        finish_run(session, run)
        return dict(
            session.execute(
                select(Crystal.source_id, CrystalRevision.id).join(CrystalRevision).where(CrystalRevision.is_current)
            ).all()
        )


@pytest.fixture
def vectors(engine: Engine, crystals: dict[str, int]) -> dict[str, list[float]]:
    """Embeddings on a quarter circle, so that crystal n+1 is nearest to n: an image and a text encoder."""
    angle = {ident: 0.05 * (int(ident[3:]) - 1) for ident in crystals}
    made = {ident: [float(np.cos(a)), float(np.sin(a)), 0.0] for ident, a in angle.items()}
    with session_scope(engine) as session:
        image = ensure_encoder(
            session,
            EncoderKey(
                weights_sha256=sha("circle"), preprocessing={"none": True}, recipe_id=find_recipe(session, "metric").id
            ),
            name="circle:metric",
            modality="image",
            dim=3,
        )
        write_embeddings(session, image, [(crystals[i], v, sha(i)) for i, v in made.items()])
        set_encoder_alias(session, "default", image)
    return made


@pytest.fixture
def models(engine: Engine, crystals: dict[str, int], home: Path) -> SimpleNamespace:
    """Split ``default`` for k_vrh, ``image`` of two versions and ``baseline-mean``, with every kind of row."""
    store = ArtifactStore(home / "artifacts")
    with session_scope(engine) as session:
        split = create_split(session, "default", target="k_vrh", rule=SplitRule(holdout=0.25, n_folds=3))
        for error in (8.0, 4.0):
            _experiment(session, store, "image", split.id, error=error)
        _experiment(session, store, "baseline-mean", split.id, error=40.0)
        return SimpleNamespace(split_id=split.id)


def _experiment(session: Session, store: ArtifactStore, name: str, split_id: int, *, error: float) -> None:
    network = name == "image"
    config: dict[str, object] = {"type": "baseline", "version": 2, "name": "mean", "target": "k_vrh"}
    if network:
        head = {"type": "network", "dropout": error / 100}  # different for each version
        config = {"type": "tower", "version": 2, "target": "k_vrh", "modality": "image", "head": head}
    run = start_experiment(session, name=name, target="k_vrh", kind=name, config=config, seed=0, split_id=split_id)
    rows = [m for m in members(session, split_id) if m.subset != "excluded"]
    truth = {m.revision_id: bulk_modulus(int(m.source_id.rpartition("-")[2]) - 1) for m in rows}
    folds: list[int | None] = [*sorted({m.fold for m in rows if m.fold is not None}), None]
    for fold in folds:
        scored = [m.revision_id for m in rows if m.fold == fold]
        artifact = store.put(f"{name}-{fold}-{error}".encode())
        version = add_model_version(
            session,
            run,
            fold=fold,
            phase="readout" if network else "fit",
            n_train=len(rows) - len(scored),
            scalers={"target": {"mean": 100.0, "scale": 50.0}},
            artifact=artifact,
            best_epoch=2 if network else None,
        )
        if network:
            curve = [(1, 1.0, 1.1), (2, 0.5, 0.7), (3, 0.3, 0.9)]
            write_epochs(session, version, [EpochRow(e, a, None if fold is None else b, 0.1) for e, a, b in curve])
        subset = "holdout" if fold is None else "validation"
        # Alternately too large and too small.
        values = [truth[r] + error * (-1) ** i for i, r in enumerate(scored)]
        spread = [error / 2] * len(scored) if fold is None else None
        write_predictions(session, version, scored, values, subset=subset, spread=spread)
        scores = {"r2": 1 - error / 100, "rmse": error, "mae": error}
        write_metrics(session, version, subset=subset, values=scores, n=len(scored))
    finish_experiment(session, run)
