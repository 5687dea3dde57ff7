from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import ConfigurationError
from train.config.config import KINDS, PhaseConfig, TrainConfig


@pytest.mark.parametrize("kind", KINDS)
def test_to_dict_and_back_through_json(kind: Any) -> None:
    config = TrainConfig(kind=kind, target="k_vrh")
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_defaults_are_the_published_ones() -> None:
    config = TrainConfig(kind="stacked", target="efermi")
    assert config.readout == PhaseConfig(7e-4, batch_size=32, max_epochs=700, patience=15)
    assert config.finetune == PhaseConfig(1e-5, batch_size=32, max_epochs=700, patience=15)
    assert config.image_widths == (1024, 512, 256)
    assert config.text_widths == (512, 512, 256)
    assert config.stacked_widths == (256,)
    assert (config.image_dropout, config.text_dropout, config.stacked_dropout) == (0.2, 0.1, 0.1)
    assert [TrainConfig("text", "efermi", text_level=t).max_tokens for t in ("formula", "keywords", "all")] == [
        11,
        100,
        512,
    ]


def test_towers() -> None:
    assert TrainConfig("stacked", "efermi").towers == ("image", "text")
    assert TrainConfig("text", "efermi").towers == ("text",)
    assert TrainConfig("baseline-magpie", "efermi").towers == ()
    assert TrainConfig("baseline-magpie", "efermi").is_baseline


def test_a_stacks_tower_is_the_model_that_stands_alone() -> None:
    # What is of the text alone must not tell one image tower from another.
    stacked = TrainConfig("stacked", "k_vrh", text_level="all", stack_features="in-sample", image_size=96)
    assert stacked.tower_config("image") == TrainConfig("image", "k_vrh", image_size=96)
    assert stacked.tower_config("image").to_dict() == TrainConfig("image", "k_vrh", image_size=96).to_dict()
    assert stacked.tower_config("text") == TrainConfig("text", "k_vrh", text_level="all")
    with pytest.raises(ConfigurationError, match="tower"):
        TrainConfig("image", "k_vrh").tower_config("text")


def test_no_seed_in_a_config() -> None:
    assert not [name for name in TrainConfig("stacked", "k_vrh").to_dict() if "seed" in name]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"kind": "image"}, "target"),
        ({"target": "k_vrh"}, "kind"),
        ({"kind": "imagf", "target": "k_vrh"}, "kind"),
        ({"kind": "image", "target": ""}, "target"),
        ({"kind": "image", "target": "k_vrh", "recpie": "metric"}, "recpie.*'recipe'"),
        ({"kind": "image", "target": "k_vrh", "text_level": "all"}, "text_level has no effect"),
        ({"kind": "text", "target": "k_vrh", "text_level": "some"}, "text_level"),
        ({"kind": "image", "target": "k_vrh", "image_dropout": 1.0}, "image_dropout"),
        ({"kind": "image", "target": "k_vrh", "image_dropout": "0.1"}, "image_dropout"),
        ({"kind": "image", "target": "k_vrh", "image_widths": []}, "image_widths"),
        ({"kind": "image", "target": "k_vrh", "image_widths": [0]}, "image_widths"),
        ({"kind": "image", "target": "k_vrh", "image_size": 16}, "image_size"),
        ({"kind": "image", "target": "k_vrh", "stop_fraction": -0.1}, "stop_fraction"),
        ({"kind": "image", "target": "k_vrh", "finetune_enabled": "yes"}, "finetune_enabled"),
        ({"kind": "image", "target": "k_vrh", "readout": {}}, "readout.learning_rate"),
        ({"kind": "image", "target": "k_vrh", "readout": 3}, "readout"),
        ({"kind": "image", "target": "k_vrh", "readout": {"learning_rate": -1}}, "readout.learning_rate"),
        ({"kind": "image", "target": "k_vrh", "readout": {"learning_rate": float("nan")}}, "readout.learning_rate"),
        ({"kind": "image", "target": "k_vrh", "readout": {"learning_rate": 1, "batch_size": 1}}, "readout.batch_size"),
        ({"kind": "image", "target": "k_vrh", "readout": {"learning_rate": 1, "patience": 0}}, "readout.patience"),
        ({"kind": "image", "target": "k_vrh", "readout": {"learning_rate": 1, "lr": 0}}, "readout.lr"),
        ({"kind": "image", "target": "k_vrh", "finetune": {"learning_rate": 1, "weight_decay": -1}}, "weight_decay"),
        ({"kind": "stacked", "target": "k_vrh", "stack_features": "mixed"}, "stack_features"),
        ({"kind": "baseline-magpie", "target": "k_vrh", "n_estimators": 0}, "n_estimators"),
    ],
)
def test_an_unusable_field_is_named(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        TrainConfig.from_dict(values)


@given(
    st.builds(
        PhaseConfig,
        st.floats(1e-8, 1),
        batch_size=st.integers(2, 512),
        max_epochs=st.integers(1, 1000),
        patience=st.integers(1, 100),
        weight_decay=st.floats(0, 1),
    )
)
def test_phases_survive_json(phase: PhaseConfig) -> None:
    assert PhaseConfig.from_dict(json.loads(json.dumps(phase.to_dict()))) == phase
