"""Other targets learnt beside the own one: from the training rows alone, whatever is not known left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.errors import ConfigurationError
from tests.train.conftest import SmallRegistry, flat_config
from tests.train.experiments.test_traps import change, members, scored, weights
from train.experiments.rows import load_rows
from train.models.building import build_network

OTHERS = "UPDATE property_values SET value = value * -3 + 700 WHERE property = 'efermi' AND revision_id = ANY(:ids)"


def test_the_loss_is_the_mean_over_what_is_known() -> None:
    config = flat_config(kind="text", target="k_vrh", auxiliary_targets=("efermi",), text_widths=(4,))
    network = build_network(config, {"text": 3}, seed=0).eval()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([[1.0, float("nan")], [2.0, 0.5], [0.0, float("nan")], [1.0, 1.5], [3.0, float("nan")]])
    every = network.readout.every(network.forward_features({"text": x}))
    own = ((every[:, 0] - y[:, 0]) ** 2).mean()
    other = ((every[[1, 3], 1] - y[[1, 3], 1]) ** 2).mean()
    loss = network.loss({"text": x}, y)
    torch.testing.assert_close(loss, (own + other) / 2)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    # A target without a known value in the batch adds nothing to the loss.
    blind = y.clone()
    blind[:, 1] = float("nan")
    torch.testing.assert_close(network.loss({"text": x}, blind), own / 2)
    torch.testing.assert_close(network({"text": x}), every[:, 0])


def test_auxiliary_targets_are_read_of_training_rows_only(small: SmallRegistry) -> None:
    config = small.config("text", auxiliary_targets=["efermi"])
    clean = small.run(config)
    assert weights(small, clean.experiment_id) != weights(small, small.run(small.config("text")).experiment_id)
    change(small, OTHERS, members(small, "holdout"))
    held = small.run(config, again=True)
    assert weights(small, held.experiment_id) == weights(small, clean.experiment_id)
    change(small, OTHERS, members(small, "cv", 1))
    poisoned = small.run(config, again=True)
    after, before = weights(small, poisoned.experiment_id), weights(small, clean.experiment_id)
    assert after[1] == before[1]
    assert after[0] != before[0]
    assert scored(small, poisoned.experiment_id)[1, "readout", "validation", "rmse"] == pytest.approx(
        scored(small, clean.experiment_id)[1, "readout", "validation", "rmse"]
    )


def test_another_value_of_another_target_is_another_experiment(small: SmallRegistry) -> None:
    config = small.config("text", auxiliary_targets=["efermi"])
    small.run(config)
    assert small.run(config).outcome == "unchanged"
    change(small, OTHERS, members(small, "cv", 1)[:1])
    assert small.run(config).outcome == "trained"


def test_suspect_and_unknown_values_are_not_targets(small: SmallRegistry) -> None:
    ids = members(small, "cv")
    change(small, "UPDATE property_values SET suspect = true, suspect_reason = 'a test' WHERE property = 'efermi' AND"
                  " revision_id = ANY(:ids)", ids[:1])  # fmt: skip
    change(small, "DELETE FROM property_values WHERE property = 'efermi' AND revision_id = ANY(:ids)", ids[1:2])
    with Session(small.engine) as session:
        rows = load_rows(session, "small", target="k_vrh", inputs=small.config("text").inputs, auxiliary=("efermi",))
    unknown = {
        int(rid) for rid, value in zip(rows.cv.revision_ids, rows.auxiliary[:, 0], strict=True) if np.isnan(value)
    }
    assert unknown == set(ids[:2])
    assert rows.targets.shape == (len(rows.cv), 2)
    np.testing.assert_array_equal(rows.targets[:, 0], rows.cv.values)


def test_a_stack_of_towers_that_learn_more_than_one_target(small: SmallRegistry) -> None:
    result = small.run(small.config("stacked", auxiliary_targets=["efermi"]))
    assert result.cv["r2"] > 0.3
    with small.engine.connect() as connection:
        found = connection.scalar(text("SELECT config->'auxiliary_targets' FROM experiments WHERE kind = 'image'"))
    assert found == ["efermi"]


def test_the_target_is_not_an_auxiliary_target() -> None:
    with pytest.raises(ConfigurationError, match="which is the target; give other properties"):
        flat_config(kind="text", target="k_vrh", auxiliary_targets=("k_vrh",))
