"""A search: its trials are cross-validations, it goes on after a kill, and it never reads the holdout."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.errors import ConfigurationError
from tests.train.conftest import SmallRegistry, flat_config
from train.config.config import TrainConfig
from train.config.kinds import parse_config
from train.experiments import tuning
from train.experiments.cross_validation import cross_validate
from train.experiments.rows import load_rows
from train.experiments.search_spaces import apply, space_of
from train.experiments.tuning import tune
from train.models.options import KINDS, build_config
from train.models.regressors.catalog import REGRESSORS


def trials_of(engine: Any, study: str) -> list[Any]:
    """Values and parameters of the finished trials, in their order."""
    with Session(engine) as session:
        return list(
            session.execute(
                text(
                    "SELECT t.state::text, v.value,"
                    " array_agg(p.param_name || '=' || p.param_value ORDER BY p.param_name) AS params"
                    " FROM optuna.trials t JOIN optuna.studies s USING (study_id)"
                    " LEFT JOIN optuna.trial_values v USING (trial_id)"
                    " LEFT JOIN optuna.trial_params p USING (trial_id)"
                    " WHERE s.study_name = :study AND t.state::text IN ('COMPLETE', 'PRUNED')"
                    " GROUP BY t.trial_id, t.state, v.value ORDER BY t.trial_id"
                ),
                {"study": study},
            )
        )


def search(small: SmallRegistry, config: TrainConfig, **options: Any) -> Any:
    return tune(small.context(), config, **({"split": "small", "trials": 4} | options))


def test_every_space_holds_what_it_begins_with() -> None:
    for kind in KINDS:
        if kind == "baseline-mean":
            continue
        config = parse_config({"kind": kind, "target": "k_vrh"})
        space = space_of(config)
        assert space
        assert apply(config, {parameter.name: parameter.value_in(config) for parameter in space}) == config
    odd = parse_config({"kind": "text", "target": "k_vrh", "text_widths": [7, 5], "readout": {"learning_rate": 0.5}})
    space = {parameter.name: parameter for parameter in space_of(odd)}
    assert "7-5" in space["head.widths"].choices
    assert space["training.readout.learning_rate"].high == 0.5


def test_regressors_are_chosen_from_and_stacks_lose_towers() -> None:
    config = build_config("stacked", "k_vrh")
    space = {parameter.name: parameter for parameter in space_of(config)}
    assert list(space) == [
        "towers", "join.name", "towers.image.features.backbone", "towers.composition.features.backbone",
    ]  # fmt: skip
    assert len(space["towers"].choices) == 11  # 6 pairs, 4 threes, all
    tried = apply(config, {"towers": "composition-density", "join.name": "ridge"})
    assert tried.modalities == ("composition", "density")
    assert tried.to_dict()["join"] == {"type": "regressor", "name": "ridge", "reads": "predictions"}
    for kind in ("image", "text", "composition", "density"):
        one = flat_config(kind=kind, target="k_vrh", **{f"{kind}_regressor": "ridge"})
        assert apply(one, {parameter.name: parameter.value_in(one) for parameter in space_of(one)}) == one
    assert set(space["join.name"].choices) == set(REGRESSORS)


def test_the_first_trial_of_a_regressor_is_the_experiment_that_training_makes(small: SmallRegistry) -> None:
    base = {"target": "k_vrh", "composition_backbone": "magpie"}
    dense = {name: value for name, value in small.fields("text").items() if name not in ("kind", "target")}
    dense |= {phase: {**dense[phase], "max_epochs": 2} for phase in ("readout", "finetune")}
    for fields in (
        {"kind": "composition", "composition_regressor": "gaussian-process"},
        {"kind": "stacked", "stack_towers": ["text", "composition"], "join": "gaussian-process",
         "text_backbone": dense["text_backbone"]},
        {"kind": "stacked", "stack_towers": ["text", "composition"], "join": "ridge",
         "composition_regressor": "trees", **dense},
    ):  # fmt: skip
        config = parse_config(base | fields)
        trained = small.run(config)
        found = search(small, config, trials=1)
        assert found.default_rmse == pytest.approx(trained.cv["rmse"], rel=1e-6)
        assert (found.finished, found.changed, found.best) == (1, {}, config)


def test_a_search_over_regressors_finds_no_worse_one_and_goes_on(small: SmallRegistry) -> None:
    config = parse_config(
        {"kind": "composition", "target": "k_vrh", "composition_backbone": "magpie", "composition_regressor": "trees"}
    )
    first = search(small, config, trials=3)
    more = search(small, config, trials=6)
    assert (more.study, more.made, more.finished) == (first.study, 3, 6)
    assert more.best_rmse <= first.best_rmse <= first.default_rmse
    assert small.run(more.best).cv["rmse"] == pytest.approx(more.best_rmse, rel=1e-6)
    # Two features, five regressors: none is tried twice, and the search ends when all have been.
    whole = search(small, config, trials=50)
    assert (whole.made, whole.finished) == (4, 10)
    assert len({tuple(trial.params) for trial in trials_of(small.engine, whole.study)}) == 10
    assert search(small, config, trials=50).made == 0


def test_the_first_trial_is_the_experiment_that_training_makes(small: SmallRegistry) -> None:
    for config in (
        small.config("text"),
        small.config("stacked"),
        small.config("text", auxiliary_targets=["efermi"]),
    ):
        trained = small.run(config)
        found = search(small, config, trials=1)
        assert found.default_rmse == pytest.approx(trained.cv["rmse"], rel=1e-6)
        assert found.best_r2 == pytest.approx(trained.cv["r2"], rel=1e-6)
        assert (found.finished, found.changed, found.best) == (1, {}, config)


def test_a_search_that_was_cut_off_goes_on_as_if_nothing_had_happened(
    small: SmallRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small.config("text")
    whole = search(small, config, trials=5)
    kept = trials_of(small.engine, whole.study)
    assert len(kept) == 5
    with small.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA optuna CASCADE"))

    count, inner = 0, tuning.cross_validate

    def dying(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return inner(*arguments, **options)

    monkeypatch.setattr(tuning, "cross_validate", dying)
    with pytest.raises(KeyboardInterrupt):
        search(small, config, trials=5)
    monkeypatch.undo()
    with small.engine.begin() as connection:  # as a killed process leaves it
        connection.execute(text("UPDATE optuna.trials SET state = 'RUNNING' WHERE state = 'FAIL'"))
    resumed = search(small, config, trials=5)
    assert (resumed.study, resumed.made, resumed.finished) == (whole.study, 3, 5)
    assert trials_of(small.engine, whole.study) == kept
    assert resumed.best == whole.best
    enough = search(small, config, trials=5)
    assert (enough.made, enough.best_rmse) == (0, whole.best_rmse)


def test_the_holdout_is_never_read(small: SmallRegistry) -> None:
    config = small.config("text")
    first = search(small, config)
    trials = trials_of(small.engine, first.study)
    with Session(small.engine) as session:
        held_out = load_rows(session, "small", target="k_vrh", inputs=config.inputs).holdout.revision_ids.tolist()
    with small.engine.begin() as connection:
        connection.execute(text("DROP SCHEMA optuna CASCADE"))
        connection.execute(
            text("UPDATE property_values SET value = 1e-3 * revision_id WHERE revision_id = ANY(:ids)"),
            {"ids": held_out},
        )
        connection.execute(
            text("UPDATE descriptions SET text = 'poison' WHERE revision_id = ANY(:ids)"), {"ids": held_out}
        )
    poisoned = search(small, config)
    assert poisoned.study == first.study
    assert trials_of(small.engine, poisoned.study) == trials


def test_time_is_a_budget_too(small: SmallRegistry) -> None:
    config = small.config("text")
    with pytest.raises(ConfigurationError, match="the search has no end"):
        search(small, config, trials=None)
    found = search(small, config, trials=1, minutes=10)
    assert found.finished == 1
    assert search(small, config, trials=50, minutes=0).made == 0


def test_what_has_no_space_is_refused(small: SmallRegistry) -> None:
    with pytest.raises(ConfigurationError, match="nothing to search for kind 'baseline-mean'"):
        search(small, parse_config({"kind": "baseline-mean", "target": "k_vrh"}))
    with pytest.raises(ConfigurationError, match="out-of-fold"):
        search(small, small.config("stacked", stack_features="out-of-fold"))


def test_migrations_and_readers_are_not_disturbed(small: SmallRegistry) -> None:
    from registry.postgres.schema import schema_status, upgrade

    search(small, small.config("text"), trials=1)
    assert schema_status(small.engine).state == "current"
    upgrade(small.engine)
    with small.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM optuna.alembic_version")) == 1
        assert connection.scalar(text("SELECT to_regclass('public.studies')")) is None


def test_folds_are_reported_one_by_one(small: SmallRegistry) -> None:
    config = small.config("text")
    with Session(small.engine) as session:
        rows = load_rows(session, "small", target="k_vrh", inputs=config.inputs).cv
    inputs = small.context().inputs(config, rows.revision_ids.tolist())
    seen: list[int] = []
    scores = cross_validate(
        config, inputs.batch(rows.revision_ids), rows, seed=0, on_fold=lambda one, so_far: seen.append(len(so_far))
    )
    assert ([s.fold for s in scores], seen) == ([0, 1, 2], [1, 2, 3])
