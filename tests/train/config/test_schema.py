"""Configuration types: defaults, validation, messages, and the round trip through JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import ConfigurationError, UnknownNameError
from train.config.config import TrainConfig
from train.config.kinds import MODEL_KINDS, parse_config
from train.config.phases import PhaseConfig
from train.config.schema import BaselineConfig, NetworkHead, NetworkJoin, StackConfig, TowerConfig
from train.modalities.features import ImageFeatures, TextFeatures

TOWER: dict[str, Any] = {"type": "tower", "target": "k_vrh", "modality": "image"}
STACK: dict[str, Any] = {
    "type": "stack",
    "target": "k_vrh",
    "towers": [{"modality": "text"}, {"modality": "image"}],
    "join": {"type": "network"},
}
CLIP: dict[str, Any] = {"type": "contrastive", "target": "k_vrh", "encoder": {"type": "clip"}}
DUAL: dict[str, Any] = {**CLIP, "encoder": {"type": "dual", "image_backbone": "inception_v3"}}
RIDGE: dict[str, Any] = {"type": "regressor", "name": "ridge"}
EVERY: list[dict[str, Any]] = [
    TOWER,
    {**TOWER, "modality": "text", "auxiliary_targets": ["efermi"]},
    {**TOWER, "modality": "composition", "head": RIDGE},
    {**TOWER, "modality": "density", "training": {"readout": {"learning_rate": 0.1}}},
    STACK,
    {**STACK, "join": {"type": "regressor", "name": "gaussian-process", "reads": "features"}},
    CLIP,
    DUAL,
    {"type": "baseline", "target": "k_vrh", "name": "mean"},
    {"type": "baseline", "target": "k_vrh", "name": "magpie", "n_estimators": 10},
]


@pytest.mark.parametrize("values", EVERY, ids=lambda values: values["type"])
def test_a_configuration_survives_json(values: dict[str, Any]) -> None:
    config = parse_config(values)
    assert isinstance(config, MODEL_KINDS[config.type].config)
    stored = json.loads(json.dumps(config.to_dict()))
    assert stored["version"] == 2
    assert parse_config(stored) == config
    assert "seed" not in json.dumps(stored)


def test_defaults_are_the_published_ones() -> None:
    stack = parse_config(STACK)
    assert isinstance(stack, StackConfig)
    assert stack.training.readout == PhaseConfig(learning_rate=7e-4, batch_size=32, max_epochs=700, patience=15)
    assert stack.training.finetune == PhaseConfig(learning_rate=1e-5, batch_size=32, max_epochs=700, patience=15)
    assert stack.tower("image").head == NetworkHead(widths=(1024, 512, 256), dropout=0.2)
    assert stack.tower("text").head == NetworkHead(widths=(512, 512, 256), dropout=0.1)
    assert stack.join == NetworkJoin(widths=(256,), dropout=0.1, tower_features="in-sample")
    assert parse_config(CLIP).phase("readout") == PhaseConfig(learning_rate=1.5e-4, max_epochs=800, patience=50)


def test_a_requested_phase_is_not_confused_with_a_default() -> None:
    requested = parse_config({**CLIP, "training": {"readout": {"learning_rate": 7e-4}}})
    assert requested.phase("readout").max_epochs == 700
    assert requested.phase("finetune").max_epochs == 800


def test_tokens_and_image_sizes_follow_from_what_is_read() -> None:
    limits = []
    for text_level in ("formula", "keywords", "all"):
        features = parse_config({**TOWER, "modality": "text", "features": {"text_level": text_level}}).inputs["text"]
        assert isinstance(features, TextFeatures)
        limits.append(features.max_tokens)
    assert limits == [11, 100, 512]
    clip = parse_config(CLIP).inputs["text"]
    assert isinstance(clip, TextFeatures)
    assert clip.max_tokens == 77
    sizes = {}
    for name in ("efficientnet_lite0", "inception_v3", "inception_v3.tv_in1k"):
        images = parse_config({**TOWER, "features": {"backbone": name}}).inputs["image"]
        assert isinstance(images, ImageFeatures)
        sizes[name] = images.size
    assert sizes == {"efficientnet_lite0": 160, "inception_v3": 299, "inception_v3.tv_in1k": 299}


def test_phases_of_each_kind() -> None:
    finetuned = {"training": {"finetune_enabled": True}}
    assert parse_config(TOWER).phases == ("readout",)
    assert parse_config({**TOWER, **finetuned}).phases == ("readout", "finetune")
    assert parse_config({**TOWER, "modality": "density", **finetuned}).phases == ("readout",)
    assert parse_config(STACK).phases == ("readout", "finetune")
    assert parse_config(EVERY[5]).phases == ("fit",)
    assert parse_config(DUAL).phases == ("align", "readout")
    assert parse_config({**CLIP, **finetuned}).phases == ("readout", "finetune")
    assert BaselineConfig(target="k_vrh", name="mean").phases == ("fit",)


def test_the_order_of_towers_does_not_matter() -> None:
    stack = parse_config(STACK)
    assert stack.modalities == ("image", "text")
    assert stack == parse_config({**STACK, "towers": list(reversed(STACK["towers"]))})


def test_a_tower_of_a_stack_is_the_model_that_stands_alone() -> None:
    # What belongs to the text alone must not distinguish one image tower from another.
    image = {"modality": "image", "features": {"size": 96}}
    stack = parse_config({**STACK, "towers": [image, {"modality": "text", "features": {"text_level": "all"}}]})
    assert stack.tower_config("image") == parse_config({**TOWER, "features": {"size": 96}})
    assert stack.tower_config("image").to_dict() == parse_config({**TOWER, "features": {"size": 96}}).to_dict()
    with pytest.raises(ConfigurationError, match="tower is 'density'; choose from image, text"):
        stack.tower_config("density")
    with pytest.raises(ConfigurationError, match="has no tower"):
        parse_config(TOWER).tower_config("image")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"target": "k_vrh"}, "type is missing"),
        ({"type": "tower", "modality": "image"}, "target is missing"),
        ({**TOWER, "target": " "}, "target is ' '; give a name"),
        ({**TOWER, "version": 3}, "version is 3; this release reads versions 1 and 2"),
        ({**TOWER, "features": {"recpie": "metric"}}, "features.recpie is not a field.*'recipe'"),
        ({**TOWER, "features": {"text_level": "all"}}, "features.text_level is not a field"),
        ({**TOWER, "features": {"size": 16}}, "features.size is 16"),
        ({**TOWER, "head": {"dropout": 1.0}}, r"head.*dropout is 1.0"),
        ({**TOWER, "head": {"dropout": "0.1"}}, r"head.*dropout is '0.1'"),
        ({**TOWER, "head": {"widths": []}}, r"head.*widths is \[\]"),
        ({**TOWER, "head": {"widths": [0]}}, r"head.*widths.0 is 0"),
        ({**TOWER, "training": {"stop_fraction": -0.1}}, "training.stop_fraction is -0.1"),
        ({**TOWER, "training": {"finetune_enabled": "yes"}}, "training.finetune_enabled is 'yes'"),
        ({**TOWER, "training": {"readout": {}}}, "training.readout.learning_rate is missing"),
        ({**TOWER, "training": {"readout": 3}}, "training.readout is 3"),
        ({**TOWER, "training": {"readout": {"learning_rate": -1}}}, "training.readout.learning_rate is -1"),
        ({**TOWER, "training": {"readout": {"learning_rate": float("nan")}}}, "learning_rate is nan"),
        ({**TOWER, "training": {"readout": {"learning_rate": 1, "batch_size": 1}}}, "batch_size is 1"),
        ({**TOWER, "training": {"readout": {"learning_rate": 1, "lr": 0}}}, "training.readout.lr is not a field"),
        ({**TOWER, "head": RIDGE, "training": {"stop_fraction": 0.2}}, "training has no effect"),
        ({**TOWER, "auxiliary_targets": ["k_vrh"]}, "which is the target"),
        ({**TOWER, "auxiliary_targets": ["efermi", "efermi"]}, "give each property once"),
        ({**TOWER, "features": {"augment": True}, "head": RIDGE}, "augment has no effect on the regressor 'ridge'"),
        ({**STACK, "join": {"type": "network", "tower_features": "mixed"}}, "tower_features is 'mixed'"),
        ({**STACK, "towers": [{"modality": "text"}, {"modality": "text"}]}, "give each modality once"),
        ({**STACK, "towers": [{"modality": "text", "head": RIDGE}]}, "has no penultimate layer to join"),
        ({"type": "baseline", "target": "k_vrh", "name": "magpie", "n_estimators": 0}, "n_estimators is 0"),
        (
            {"type": "baseline", "target": "k_vrh", "name": "mean", "n_estimators": 3},
            "effect on the baseline 'mean'",
        ),
    ],
)
def test_an_unusable_field_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as found:
        parse_config(values)
    assert "\n" not in str(found.value)


def test_an_unknown_kind_or_modality_is_named_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'tower'"):
        parse_config({**TOWER, "type": "towre"})
    with pytest.raises(UnknownNameError, match="did you mean 'image'"):
        parse_config({**TOWER, "modality": "imagf"})


def test_a_changed_copy_is_validated() -> None:
    tower = parse_config(TOWER)
    assert isinstance(tower, TowerConfig)
    assert tower.replace(target="efermi").target == "efermi"
    with pytest.raises(ConfigurationError, match="targte is not a field"):
        tower.replace(targte="efermi")
    with pytest.raises(ConfigurationError, match="stop_fraction is 2"):
        tower.training.replace(stop_fraction=2)


def test_vectors_of_a_contrastive_model_represent_images() -> None:
    config: TrainConfig = parse_config(DUAL)
    assert (config.embedded, config.modalities, config.shares_space) == (("image",), ("image", "text"), True)
    assert parse_config(STACK).embedded == ("image", "text")


@given(
    st.builds(
        PhaseConfig,
        learning_rate=st.floats(1e-8, 1),
        batch_size=st.integers(2, 512),
        max_epochs=st.integers(1, 1000),
        patience=st.integers(1, 100),
        weight_decay=st.floats(0, 1),
    )
)
def test_phases_survive_json(phase: PhaseConfig) -> None:
    assert PhaseConfig.model_validate(json.loads(json.dumps(phase.to_dict()))) == phase
