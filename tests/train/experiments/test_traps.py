"""Errors in the published results, and tests that each of them is absent here.

====  ==========================================  ==========================================================
Trap  Error                                       Tests
====  ==========================================  ==========================================================
1     one network was reused for all folds           ``test_trap_1_*`` here, ``test_networks.py``,
                                                  ``test_contrastive.py``
2     holdout members were trained on             ``test_trap_2_*`` here
3     scalers were fitted before splitting        ``test_trap_3_*`` here
4     images were divided by 255 twice            ``test_backbones.py``: ``test_the_tensor_that_the_backbone_*``;
                                                  ``backbones/test_clip.py``: ``test_trap_4_*``
5     the wrong object was frozen                 ``test_networks.py``: ``test_readout_phase_*``,
                                                  ``test_finetune_phase_*``, ``test_phases_of_*``
6     every image was stretched on its own        ``test_trap_6_*`` here; ``test_backbones.py``:
                                                  ``test_no_slice_has_a_scale_of_its_own``;
                                                  ``test_recipes.py``: ``test_values_keep_their_scale``
7     slices ignored the metric                   ``test_recipes.py``: ``test_lengths_in_the_image_*``,
                                                  ``test_offsets_are_in_units_of_the_plane_spacing``
8     the spin density was used as bonding        ``test_recipes.py``: ``test_no_kind_replaces_another``;
                                                  ``readers/test_densities.py``: ``test_hdf5``;
                                                  ``test_predictor.py``: ``test_other_inputs_than_those_of_*``
9     unphysical labels were kept                 ``test_trap_9_*`` here, ``test_properties.py``
10    one sublattice, by the choice of origin     ``test_recipes.py``: ``test_every_sublattice_*``,
                                                  ``test_image_does_not_depend_on_*``,
                                                  ``test_rock_salt_with_either_species_at_the_origin``
11    there was no baseline                       ``test_trap_11_*`` here; ``test_run.py``:
                                                  ``test_baselines_come_along_unless_they_are_there``
====  ==========================================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from registry.crystals import CrystalData
from registry.database import session_scope
from registry.files.artifacts import ArtifactStore
from registry.image_recipes import find_recipe
from registry.models import Epoch, Metric, ModelVersion, SplitMember
from registry.splits.creation import SplitRule, create_split
from tests.train.conftest import SmallRegistry
from train.backbones.image_loaders import load_image_backbone
from train.config.kinds import parse_config
from train.experiments import folds
from train.experiments.rows import inner_stop, load_rows
from train.experiments.run import run_experiment
from train.features.inputs import ModelInputs
from train.featurizers.catalog import DENSITY_FEATURIZERS, FixedFeaturizer
from train.modalities.image import load_images
from train.models.building import build_network
from train.models.fitted import derived_seed
from train.models.fitting import restore_model
from train.models.network_fitting import FittedNetwork

KINDS = ("image", "text", "stacked")


def weights(small: SmallRegistry, experiment_id: int) -> dict[int | None, str | None]:
    """Checksum of the weights by fold; of the refit under None."""
    with Session(small.engine) as session:
        return {
            row.fold: row.artifact_sha256
            for row in session.execute(
                select(ModelVersion.fold, ModelVersion.artifact_sha256).where(
                    ModelVersion.experiment_id == experiment_id, ModelVersion.status == "ready"
                )
            )
        }


def scored(small: SmallRegistry, experiment_id: int) -> dict[tuple[int | None, str, str, str], float]:
    """Scores by fold, phase, subset and name, those of the holdout left out."""
    with Session(small.engine) as session:
        return {
            (row.fold, row.phase, row.subset, row.name): row.value
            for row in session.execute(
                select(ModelVersion.fold, ModelVersion.phase, Metric.subset, Metric.name, Metric.value)
                .join(Metric)
                .where(ModelVersion.experiment_id == experiment_id, Metric.subset != "holdout")
            )
        }


def curves(small: SmallRegistry, experiment_id: int, fold: int) -> list[tuple[str, int, float, float | None]]:
    with Session(small.engine) as session:
        return [
            tuple(row)
            for row in session.execute(
                select(ModelVersion.phase, Epoch.epoch, Epoch.train_loss, Epoch.stop_loss)
                .join(Epoch)
                .where(ModelVersion.experiment_id == experiment_id, ModelVersion.fold == fold)
                .order_by(ModelVersion.phase, Epoch.epoch)
            )
        ]


def change(small: SmallRegistry, statement: str, ids: list[int]) -> None:
    """Poison the rows of ``ids``."""
    with small.engine.begin() as connection:
        connection.execute(text(statement), {"ids": ids})


def members(small: SmallRegistry, subset: str, fold: int | None = None) -> list[int]:
    with Session(small.engine) as session:
        query = select(SplitMember.revision_id).where(SplitMember.split_id == 1, SplitMember.subset == subset)
        return list(session.scalars(query if fold is None else query.where(SplitMember.fold == fold)))


POISON = (
    "UPDATE property_values SET value = value * -3 + 700 WHERE revision_id = ANY(:ids)",
    # Every kept feature, turned and blown up: what a fit would notice at once.
    "UPDATE embeddings SET embedding = (SELECT array_agg(x * -50 + 9)::vector FROM unnest(embedding::real[]) x)"
    " WHERE revision_id = ANY(:ids)",
)


def test_trap_1_every_fold_starts_from_fresh_weights(small: SmallRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[dict[str, torch.Tensor]] = []
    seeds: list[int] = []

    def spy(config: Any, dims: Any, seed: int, **options: Any) -> Any:
        network = build_network(config, dims, seed, **options)
        begun.append({name: value.clone() for name, value in network.state_dict().items()})
        seeds.append(seed)
        return network

    monkeypatch.setattr("train.models.kinds.towers.build_network", spy)
    config = small.config("image")
    result = small.run(config)
    ended = weights(small, result.experiment_id)
    assert len(begun) == 4
    dims = {"image": len(begun[0]["scale.mean"])}
    for place, (fold, sha) in enumerate(sorted(ended.items(), key=lambda item: (item[0] is None, item[0]))):
        assert seeds[place] == derived_seed(derived_seed(0, "fold", fold), "weights")
        fresh = build_network(config, dims, seeds[place]).state_dict()
        assert all(torch.equal(fresh[name], begun[place][name]) for name in fresh)
        final = restore_model(config, ArtifactStore(small.settings.artifacts).read(f"{sha[:2]}/{sha}.safetensors", sha))
        assert isinstance(final, FittedNetwork)
        learnt = final.network.state_dict()["readout.body.0.weight"]
        assert not any(torch.equal(learnt, start["readout.body.0.weight"]) for start in begun)


@pytest.mark.parametrize("kind", ["clip", "dual-encoder"])
def test_trap_1_every_fold_is_aligned_from_fresh_projections(
    small: SmallRegistry, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, torch.Tensor]] = []
    seeds: list[int] = []

    def spy(config: Any, dims: Any, seed: int, **options: Any) -> Any:
        network = build_network(config, dims, seed, **options)
        begun.append({name: value.clone() for name, value in network.state_dict().items()})
        seeds.append(seed)
        return network

    monkeypatch.setattr("train.models.kinds.contrastive.build_network", spy)
    config = small.config(kind)
    result = small.run(config)
    assert seeds == [derived_seed(derived_seed(0, "fold", fold), "weights") for fold in (0, 1, 2, None)]
    dims = {name: len(begun[0][f"towers.{name}.scale.mean"]) for name in ("image", "text")}
    trained = ["readout.head.weight"]
    trained += [f"towers.{name}.readout.body.1.weight" for name in dims if kind == "dual-encoder"]
    ended = weights(small, result.experiment_id)
    for seed, start, fold in zip(seeds, begun, (0, 1, 2, None), strict=True):
        fresh = build_network(config, dims, seed).state_dict()
        assert all(torch.equal(fresh[name], start[name]) for name in fresh)
        sha = ended[fold]
        final = restore_model(config, ArtifactStore(small.settings.artifacts).read(f"{sha[:2]}/{sha}.safetensors", sha))
        assert isinstance(final, FittedNetwork)
        for name in trained:
            assert not any(torch.equal(final.network.state_dict()[name], other[name]) for other in begun)


@pytest.mark.parametrize("kind", ["stacked", "clip", "dual-encoder"])
def test_trap_2_holdout_rows_reach_no_fit(small: SmallRegistry, kind: str) -> None:
    clean = small.run(small.config(kind))
    towers = {r.name: weights(small, r.experiment_id) for r in clean.prerequisites}
    for statement in POISON:
        change(small, statement, members(small, "holdout"))
    assert all(small.run(small.config(name), again=True).outcome == "trained" for name in towers)
    poisoned = small.run(small.config(kind), again=True)
    for r in poisoned.prerequisites:
        assert r.version == 2
        assert weights(small, r.experiment_id) == towers[r.name]
    assert weights(small, poisoned.experiment_id) == weights(small, clean.experiment_id)
    assert scored(small, poisoned.experiment_id) == scored(small, clean.experiment_id)
    assert poisoned.holdout["rmse"] > 10 * clean.holdout["rmse"]  # the poison was there


@pytest.mark.parametrize("kind", ["image", "text", "clip", "dual-encoder"])
def test_trap_1_the_scored_fold_reaches_no_fit_and_stops_nothing(small: SmallRegistry, kind: str) -> None:
    clean = small.run(small.config(kind))
    for statement in POISON:
        change(small, statement, members(small, "cv", 1))
    poisoned = small.run(small.config(kind), again=True)
    assert curves(small, poisoned.experiment_id, 1) == curves(small, clean.experiment_id, 1)
    assert weights(small, poisoned.experiment_id)[1] == weights(small, clean.experiment_id)[1]
    # The other folds train on those rows, and notice.
    assert curves(small, poisoned.experiment_id, 0) != curves(small, clean.experiment_id, 0)
    before, after = scored(small, clean.experiment_id), scored(small, poisoned.experiment_id)
    assert after[1, "readout", "train", "rmse"] == before[1, "readout", "train", "rmse"]
    assert after[1, "readout", "validation", "rmse"] > 3 * before[1, "readout", "validation", "rmse"]


def test_trap_3_scalers_are_fitted_on_the_rows_that_are_fitted(small: SmallRegistry) -> None:
    config = small.config("image")
    result = small.run(config)
    store = ArtifactStore(small.settings.artifacts)
    with Session(small.engine) as session:
        rows = load_rows(session, "small", target="k_vrh", inputs=config.inputs).cv
        versions = session.scalars(select(ModelVersion).where(ModelVersion.experiment_id == result.experiment_id)).all()
        vectors = dict(
            session.execute(
                text("SELECT revision_id, embedding::real[] FROM embeddings e JOIN encoders c ON c.id = e.encoder_id"
                     " WHERE c.name = 'tiny-image:metric'")
            ).all()
        )  # fmt: skip
    for version in versions:
        fitted = np.ones(len(rows), dtype=bool) if version.fold is None else rows.folds != version.fold
        if version.fold is not None:
            fitted[np.flatnonzero(fitted)[inner_stop(rows.take(fitted), version.fold, seed=0)]] = False
        assert version.n_train == fitted.sum()
        assert version.scalers["target"]["mean"] == pytest.approx(rows.values[fitted].mean(), rel=1e-12)
        assert version.scalers["target"]["scale"] == pytest.approx(rows.values[fitted].std(), rel=1e-12)
        model = restore_model(config, store.read(version.artifact_uri, version.artifact_sha256))
        assert isinstance(model, FittedNetwork)
        features = np.array([vectors[int(rid)] for rid in rows.revision_ids[fitted]])
        np.testing.assert_allclose(model.network.scale.mean.numpy(), features.mean(axis=0), rtol=1e-4, atol=1e-6)


def test_trap_6_the_scale_of_a_density_is_in_its_features(
    small: SmallRegistry, crystal_of: Callable[..., CrystalData]
) -> None:
    """From the registry to the features: the same picture of twice the density is another input."""
    backbone = load_image_backbone(small.image_backbone, channels=("total", "deformation"), image_size=32)
    with Session(small.engine) as session:
        recipe = find_recipe(session, "metric")
        pixels = load_images(session, [small.revisions["mp-1"]], recipe_id=recipe.id)
    np.testing.assert_array_equal(pixels[0], crystal_of(0).slices[0].pixels)
    once, twice = backbone.features(pixels), backbone.features(2 * pixels)
    assert abs(twice - once).max() > 0.01 * abs(once).max()


def test_trap_9_suspect_labels_take_no_part(
    small: SmallRegistry, crystal_of: Callable[..., CrystalData], write: Callable[..., None]
) -> None:
    import dataclasses

    from registry.crystals import PropertyData

    crystal = crystal_of(3)
    broken = (PropertyData("k_vrh", -181.7, "GGA"),)
    write(dataclasses.replace(crystal, source="bad", source_id="mp-1787", material_key="bad", properties=broken))
    with session_scope(small.engine) as session:
        create_split(session, "all", target="k_vrh", rule=SplitRule(n_folds=3))
        rows = load_rows(session, "all", target="k_vrh", inputs=small.config("image").inputs)
        assert "bad:mp-1787" not in (*rows.cv.source_ids, *rows.holdout.source_ids)
        reason = session.scalar(select(SplitMember.reason).where(SplitMember.source_id == "bad:mp-1787"))
        assert reason is not None
        assert reason.startswith("suspect")


def test_trap_11_every_leaderboard_has_its_baselines(small: SmallRegistry) -> None:
    """Scored on the very rows of the model beside them."""
    result = run_experiment(small.context(), small.config("text", target="efermi"), split="small")
    assert result.outcome == "trained"
    with Session(small.engine) as session:
        board = session.execute(text("SELECT model, n_cv, n_holdout FROM v_leaderboard WHERE target = 'efermi'")).all()
    assert {row.model for row in board} == {"text", "baseline-mean", "baseline-magpie"}
    assert len({(row.n_cv, row.n_holdout) for row in board}) == 1


def blind_r2(small: SmallRegistry, run: Callable[[], Any]) -> float:
    """Cross-validated R2 when every crystal has the label of another: the mean of several draws, as one is chance."""
    scores = []
    for draw in range(4):
        permute(small, draw)
        scores.append(run().cv["r2"])
    return float(np.mean(scores))


def permute(small: SmallRegistry, draw: int) -> None:
    """Give every crystal the label of another."""
    with small.engine.begin() as connection:
        values = connection.execute(
            text("SELECT revision_id, value FROM property_values WHERE property = 'k_vrh' ORDER BY revision_id")
        ).all()
        order = np.random.default_rng(draw).permutation(len(values))
        for (revision_id, _), source in zip(values, order, strict=True):
            connection.execute(
                text("UPDATE property_values SET value = :v WHERE revision_id = :r AND property = 'k_vrh'"),
                {"v": values[source][1], "r": revision_id},
            )


@pytest.mark.parametrize("kind", ["image", "text", "stacked", "clip", "dual-encoder", "baseline-magpie"])
def test_permuted_labels_cannot_be_predicted(small: SmallRegistry, kind: str) -> None:
    assert blind_r2(small, lambda: small.run(small.config(kind))) < 0.1


@pytest.fixture
def cell_edges(monkeypatch: pytest.MonkeyPatch) -> str:
    """Features of densities that are quick to make: the edge of the cell, which determines K_VRH."""

    def grids(session: Session, store: Any, revision_ids: Sequence[int], files: Any) -> list[float]:
        edge = text("SELECT (structure #>> '{lattice,matrix,0,0}')::float8 FROM crystal_revisions WHERE id = :id")
        return [float(session.scalar(edge, {"id": rid}) or 0) for rid in revision_ids]

    def features(edges: Any) -> np.ndarray[Any, Any]:
        edge = np.array(list(edges))
        return np.stack([edge, edge**2, np.sin(7 * edge)], axis=1)

    monkeypatch.setattr("train.modalities.density.load_densities", grids)
    about = {"of": "edges"}
    toy = FixedFeaturizer("edges", "density", dim=3, compute=features, about=about)
    monkeypatch.setitem(DENSITY_FEATURIZERS._entries, "edges", lambda: toy)
    return "edges"


@pytest.mark.parametrize("regressor", ["network", "kernel", "trees", "gradient-boosting"])
def test_permuted_labels_cannot_be_predicted_by_a_density(
    small: SmallRegistry, cell_edges: str, regressor: str
) -> None:
    fields = {"kind": "density", "target": "k_vrh", "density_backbone": cell_edges, "density_regressor": regressor}
    if regressor == "network":
        fields |= {"density_widths": [16, 8], "readout": small.fields("text")["readout"]}
    config = parse_config(fields)
    assert small.run(config).cv["r2"] > 0.4
    assert blind_r2(small, lambda: small.run(config)) < 0.1


@pytest.mark.parametrize("kind", ["clip", "dual-encoder"])
def test_one_seed_gives_one_result(small: SmallRegistry, kind: str) -> None:
    config = small.config(kind)
    first, again, other = small.run(config), small.run(config, again=True), small.run(config, seed=1)
    assert weights(small, again.experiment_id) == weights(small, first.experiment_id)
    assert scored(small, again.experiment_id) == scored(small, first.experiment_id)
    assert again.holdout == first.holdout
    assert not set(weights(small, other.experiment_id).values()) & set(weights(small, first.experiment_id).values())


@pytest.mark.parametrize("kind", ["image", "stacked", "dual-encoder", "baseline-magpie"])
def test_true_labels_can(small: SmallRegistry, kind: str) -> None:
    assert small.run(small.config(kind)).cv["r2"] > 0.4


def test_trap_2_the_holdout_is_predicted_once(small: SmallRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all models of an experiment only the refit is scored on the holdout, after everything has been fitted."""
    order: list[str] = []
    fit = folds.fit_model

    def fitting(*args: Any, **kwargs: Any) -> Any:
        order.append("fit")
        return fit(*args, **kwargs)

    batch = ModelInputs.batch

    def showing(self: Any, ids: Any, **options: Any) -> Any:
        if set(ids.tolist()) & set(members(small, "holdout")):
            order.append("holdout" if len(ids) < 20 else "all")
        return batch(self, ids, **options)

    monkeypatch.setattr(folds, "fit_model", fitting)
    monkeypatch.setattr(ModelInputs, "batch", showing)
    result = small.run(small.config("text"))
    assert order == ["fit"] * 4 + ["holdout", "all"]  # all: vectors of every crystal, which no score comes from
    with Session(small.engine) as session:
        subsets = session.execute(
            select(ModelVersion.fold).join(Metric).where(Metric.subset == "holdout", Metric.name == "rmse")
        ).all()
    assert subsets == [(None,)]
    assert result.n_holdout > 0
