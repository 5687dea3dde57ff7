"""Configurations of version 1: every kind that release 0.1.0 stored is read, and found by its checksum."""

from __future__ import annotations

from typing import Any

import pytest

from registry.errors import ConfigurationError
from train.config.kinds import parse_config
from train.config.schema import RegressorJoin, StackConfig
from train.config.version1 import to_version_1

READOUT = {"learning_rate": 7e-4, "batch_size": 32, "max_epochs": 700, "patience": 15, "weight_decay": 0.0}
PHASES: dict[str, Any] = {
    "readout": READOUT,
    "finetune": {**READOUT, "learning_rate": 1e-5},
    "finetune_enabled": False,
    "stop_fraction": 0.1,
}
IMAGE: dict[str, Any] = {
    "recipe": "metric",
    "image_backbone": "efficientnet_lite0",
    "image_size": 160,
    "image_views": 1,
    "image_average": True,
    "image_regressor": "network",
}
TEXT: dict[str, Any] = {"text_level": "keywords", "text_backbone": "minilm", "text_regressor": "network"}
FIXED: dict[str, Any] = {
    "composition_backbone": "elements",
    "composition_regressor": "gaussian-process",
    "density_backbone": "density-statistics",
    "density_regressor": "gaussian-process",
}
DENSE: dict[str, Any] = {"image_augment": False, "image_widths": [1024, 512, 256], "image_dropout": 0.2}
JOINED: dict[str, Any] = {
    "join": "network",
    "stacked_widths": [256],
    "stacked_dropout": 0.1,
    "stack_features": "out-of-fold",
}
STORED: list[dict[str, Any]] = [
    {"kind": "image", **IMAGE, **DENSE, "auxiliary_targets": [], **PHASES},
    {"kind": "image", **IMAGE, "image_regressor": "kernel"},
    {"kind": "text", **TEXT, "text_widths": [8], "text_dropout": 0.0, "auxiliary_targets": ["efermi"], **PHASES},
    {
        "kind": "stacked",
        "stack_towers": ["image", "text", "composition", "density"],
        **IMAGE,
        **TEXT,
        **FIXED,
        "join": "gaussian-process",
    },
    {
        "kind": "stacked",
        "stack_towers": ["image", "text"],
        **IMAGE,
        **DENSE,
        **TEXT,
        "text_widths": [512, 512, 256],
        "text_dropout": 0.1,
        **JOINED,
        "auxiliary_targets": [],
        **PHASES,
    },
    {"kind": "stacked", "stack_towers": ["composition", "density"], **FIXED, "join": "ridge"},
    {"kind": "clip", "recipe": "metric", "text_level": "all", "clip": "openai/clip-vit-base-patch32", **PHASES},
    {
        "kind": "dual-encoder",
        "recipe": "metric",
        "image_backbone": "inception_v3",
        "image_size": 299,
        "text_level": "keywords",
        "text_backbone": "minilm",
        "projection_dim": 512,
        "projection_dropout": 0.5,
        "align": {**READOUT, "batch_size": 128},
        **PHASES,
    },
    {"kind": "baseline-mean"},
    {"kind": "baseline-magpie", "n_estimators": 400},
]


@pytest.mark.parametrize("fields", STORED, ids=lambda fields: fields["kind"])
def test_stored_fields_are_read_and_give_the_same_checksum(fields: dict[str, Any]) -> None:
    stored = {**fields, "target": "k_vrh"}
    config = parse_config(stored)
    assert (config.kind, config.target) == (stored["kind"], "k_vrh")
    assert to_version_1(config) == stored
    assert parse_config(config.to_dict()) == config


def test_what_a_stack_was_fitted_to_follows_from_its_join() -> None:
    reads = {}
    for place in (3, 5):
        config = parse_config({**STORED[place], "target": "k_vrh"})
        assert isinstance(config, StackConfig)
        assert isinstance(config.join, RegressorJoin)
        reads[config.join.name] = config.join.reads
    assert reads == {"gaussian-process": "features", "ridge": "predictions"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "imagf", "target": "k_vrh"}, "kind is 'imagf'; choose from image"),
        ({"kind": "image", "target": "k_vrh", "text_level": "all"}, "text_level has no effect on kind 'image'"),
        ({"kind": "image", "target": "k_vrh", "recpie": "metric"}, "recpie has no effect"),
        (
            {"kind": "text", "target": "k_vrh", "text_regressor": "ridge", "text_widths": [4]},
            "effect on a regressor",
        ),
        ({"kind": "stacked", "target": "k_vrh", "stack_towers": ["sound"]}, "stack_towers is .*'sound'"),
        ({"kind": "image"}, "target is missing"),
    ],
)
def test_an_unusable_field_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_config(values)
