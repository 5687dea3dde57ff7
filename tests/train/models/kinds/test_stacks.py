"""Stacks that a regressor joins, and towers that put a regressor on their features: leak-free, deterministic, whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from registry.errors import ArtifactError, ConfigurationError, ModelError
from registry.files.artifacts import ArtifactStore
from registry.models import Experiment, ModelVersion, Prediction
from tests.train.conftest import SmallRegistry, flat_config
from tests.train.experiments.test_traps import POISON, blind_r2, change, members, scored, weights
from train.config.config import TrainConfig
from train.config.kinds import parse_config
from train.experiments.stacking import out_of_fold_predictions
from train.features.batch import Batch
from train.models.fitted import FitContext
from train.models.fitted_regressors import FittedJoin, FittedRegressor, tower_predictions
from train.models.fitting import fit_model, restore_model
from train.models.regressors.catalog import REGRESSORS
from train.models.regressors.ridge import RidgeRegressor
from train.prediction.stored import predict_crystals

TOWERS = ["image", "text", "composition"]


def joined(small: SmallRegistry, join: str = "ridge", **changes: Any) -> TrainConfig:
    """A stack of a dense image tower, a dense text tower and a composition tower of trees."""
    options = {"stack_towers": TOWERS, "join": join, "composition_regressor": "trees"} | changes
    base = small.fields("stacked")
    for name in ("stacked_widths", "stack_features"):
        del base[name]
    return parse_config(base | options)


def test_a_stack_joined_by_a_regressor_trains_its_towers_and_predicts(small: SmallRegistry) -> None:
    result = small.run(joined(small))
    assert [r.name for r in result.prerequisites] == TOWERS
    assert result.cv["r2"] > 0.4
    with Session(small.engine) as session:
        versions = session.scalars(select(ModelVersion).where(ModelVersion.experiment_id == result.experiment_id)).all()
        assert {(v.fold, v.phase) for v in versions} == {(0, "fit"), (1, "fit"), (2, "fit"), (None, "fit")}
        config = session.get_one(Experiment, result.experiment_id).config
    assert config["join"]["name"] == "ridge"
    assert [tower["modality"] for tower in config["towers"]] == TOWERS


def test_a_restored_join_predicts_the_same(small: SmallRegistry) -> None:
    result = small.run(joined(small))
    with Session(small.engine) as session:
        version = session.scalars(
            select(ModelVersion).where(ModelVersion.experiment_id == result.experiment_id, ModelVersion.fold.is_(None))
        ).one()
        predictions = dict(
            session.execute(
                select(Prediction.revision_id, Prediction.value).where(
                    Prediction.model_version_id == version.id, Prediction.subset == "holdout"
                )
            ).all()
        )
    from registry.model_store import resolve_model

    with Session(small.engine) as session:
        (model,) = resolve_model(session, "stacked:k_vrh")
    repeated = predict_crystals(small.engine, small.settings, model, list(predictions))
    assert [p.value for p in repeated] == pytest.approx(list(predictions.values()))
    data = ArtifactStore(small.settings.artifacts).read(version.artifact_uri or "", version.artifact_sha256 or "")
    read = restore_model(joined(small), data)
    assert isinstance(read, FittedJoin)
    assert list(read.towers) == TOWERS
    assert isinstance(read.towers["composition"], FittedRegressor)
    assert read.to_bytes(extra=dict(read.extra))[:8]  # whole: it can be written again
    with pytest.raises(ArtifactError, match="not of a"):
        restore_model(small.config("text"), data)


def test_the_same_configuration_and_seed_give_the_same_scores_twice(small: SmallRegistry) -> None:
    first = small.run(joined(small))
    again = small.run(joined(small), again=True)
    assert again.version == first.version + 1
    assert scored(small, again.experiment_id) == scored(small, first.experiment_id)
    assert again.holdout == first.holdout


def test_holdout_rows_and_the_scored_fold_reach_no_part_of_a_joined_stack(small: SmallRegistry) -> None:
    clean = small.run(joined(small))
    for statement in POISON:
        change(small, statement, members(small, "holdout"))
    for name in TOWERS:
        small.run(joined(small).tower_config(name), again=True)
    poisoned = small.run(joined(small), again=True)
    assert weights(small, poisoned.experiment_id) == weights(small, clean.experiment_id)
    assert scored(small, poisoned.experiment_id) == scored(small, clean.experiment_id)
    for statement in POISON:
        change(small, statement, members(small, "cv", 1))
    for name in TOWERS:
        small.run(joined(small).tower_config(name), again=True)
    scored_away = small.run(joined(small), again=True)
    assert weights(small, scored_away.experiment_id)[1] == weights(small, clean.experiment_id)[1]
    assert weights(small, scored_away.experiment_id)[0] != weights(small, clean.experiment_id)[0]


@pytest.mark.parametrize("join", ["gradient-boosting", "ridge"])
def test_permuted_labels_cannot_be_predicted_by_a_joined_stack(small: SmallRegistry, join: str) -> None:
    assert blind_r2(small, lambda: small.run(joined(small, join))) < 0.1


def test_out_of_fold_predictions_do_not_contain_the_labels_of_their_rows() -> None:
    """Labels that are noise: a row's own label never comes back, as it would from a tower that was trained on it."""
    rng = np.random.default_rng(0)
    batch = Batch(60, {"composition": rng.normal(size=(60, 5)).astype(np.float32)})
    values = rng.normal(size=60)
    config = flat_config(kind="composition", target="k_vrh", composition_regressor="trees")
    context = FitContext(config, batch, values, seed=0)
    unseen = out_of_fold_predictions(context, groups=[str(i) for i in range(60)])
    (fitted,) = fit_model(context)
    seen = tower_predictions({"composition": fitted}, batch)[:, 0]
    assert np.corrcoef(seen, values)[0, 1] > 0.99
    assert abs(np.corrcoef(unseen, values)[0, 1]) < 0.35


def test_ridge_finds_a_plane_and_shrinks_noise() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(80, 4)) * [1, 10, 0.1, 3] + 5
    plane = x @ [2.0, -0.5, 30.0, 0.0] + 7
    fitted = RidgeRegressor.fit(x, plane)
    np.testing.assert_allclose(fitted.predict(x), plane, atol=1e-2 * plane.std())
    read = REGRESSORS["ridge"].from_bytes(fitted.to_bytes())
    np.testing.assert_array_equal(read.predict(x), fitted.predict(x))
    noise = RidgeRegressor.fit(x, rng.normal(size=80)).predict(x)
    assert noise.std() < 0.4
    with pytest.raises(ModelError, match=r"give \(N, 4\)"):
        fitted.predict(x[:, :2])
    with pytest.raises(ModelError, match="finite"):
        RidgeRegressor.fit(x, np.full(80, np.nan))


def test_towers_without_a_penultimate_layer_are_not_joined_by_a_network(small: SmallRegistry) -> None:
    towers = ["text", "composition"]
    with pytest.raises(ConfigurationError, match="composition tower has the regressor 'trees', which has no penult"):
        flat_config(kind="stacked", target="k_vrh", stack_towers=towers, composition_regressor="trees")


def test_dense_towers_of_fixed_features_join_at_their_penultimate_layers(small: SmallRegistry) -> None:
    base = small.fields("stacked")
    kept = {name: value for name, value in base.items() if not name.startswith(("image", "recipe"))}
    config = parse_config(kept | {"stack_towers": ["text", "composition"], "composition_widths": [16, 8]})
    result = small.run(config)
    assert [r.name for r in result.prerequisites] == ["text", "composition"]
    assert result.cv["r2"] > 0.2


def featured(small: SmallRegistry, *towers: str) -> TrainConfig:
    """A stack of all towers whose features one Gaussian process reads, or one such tower alone."""
    backbones = {"image_backbone": small.image_backbone, "image_size": 32, "text_backbone": small.text_backbone}
    chosen = towers or tuple(TOWERS)
    own = {name: value for name, value in backbones.items() if name.partition("_")[0] in chosen}
    if len(chosen) == 1:
        (tower,) = chosen
        own |= {"kind": tower, f"{tower}_regressor": "gaussian-process"}
    else:
        own |= {"kind": "stacked", "stack_towers": chosen, "join": "gaussian-process"}
    return parse_config({"target": "k_vrh", **own})


def train_featured(small: SmallRegistry, config: TrainConfig, **options: Any) -> Any:
    """Without its towers, which such a stack does not read."""
    from unittest.mock import patch

    with patch("train.experiments.run._towers", return_value=[]):
        return small.run(config, **options)


@pytest.mark.parametrize("towers", [(), ("composition",)])
def test_holdout_rows_and_the_scored_fold_reach_no_gaussian_process(
    small: SmallRegistry, towers: tuple[str, ...]
) -> None:
    config = featured(small, *towers)
    clean = train_featured(small, config)
    assert clean.cv["r2"] > 0.4
    for statement in POISON:
        change(small, statement, members(small, "holdout"))
    poisoned = train_featured(small, config, again=True)
    assert weights(small, poisoned.experiment_id) == weights(small, clean.experiment_id)
    assert scored(small, poisoned.experiment_id) == scored(small, clean.experiment_id)
    for statement in POISON:
        change(small, statement, members(small, "cv", 1))
    away = train_featured(small, config, again=True)
    after, before = weights(small, away.experiment_id), weights(small, clean.experiment_id)
    assert after[1] == before[1]
    assert after[0] != before[0]


@pytest.mark.parametrize("towers", [(), ("composition",)])
def test_permuted_labels_cannot_be_predicted_by_a_gaussian_process(
    small: SmallRegistry, towers: tuple[str, ...]
) -> None:
    assert blind_r2(small, lambda: train_featured(small, featured(small, *towers))) < 0.1


def test_a_restored_stack_of_features_predicts_the_same(small: SmallRegistry) -> None:
    from registry.model_store import resolve_model

    result = train_featured(small, featured(small))
    with Session(small.engine) as session:
        (model,) = resolve_model(session, "stacked:k_vrh")
        stored = session.execute(
            select(Prediction.revision_id, Prediction.value)
            .join(ModelVersion)
            .where(ModelVersion.experiment_id == result.experiment_id, Prediction.subset == "holdout")
        ).all()
        version = model.model_version
        data = ArtifactStore(small.settings.artifacts).read(version.artifact_uri or "", version.artifact_sha256 or "")
    read = restore_model(featured(small), data)
    assert isinstance(read, FittedRegressor)
    assert sorted(read.records) == sorted(TOWERS)
    repeated = predict_crystals(small.engine, small.settings, model, [row.revision_id for row in stored])
    assert [p.value for p in repeated] == pytest.approx([row.value for row in stored])
