"""Options of a model: their defaults, that a requested value takes precedence, and what has no effect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.errors import ConfigurationError
from train.config.files import read_config, toml_of
from train.config.kinds import parse_config
from train.config.schema import ContrastiveConfig, DualEncoder, NetworkHead, StackConfig, TowerConfig
from train.models.options import KINDS, ModelOptions, build_config


def tower(kind: str, **options: Any) -> TowerConfig:
    config = build_config(kind, "k_vrh", ModelOptions(**options))
    assert isinstance(config, TowerConfig)
    return config


def stack(**options: Any) -> StackConfig:
    config = build_config("stacked", "k_vrh", ModelOptions(**options))
    assert isinstance(config, StackConfig)
    return config


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_defaults(kind: str) -> None:
    clip = "folder/clip" if kind == "clip" else None
    assert build_config(kind, "k_vrh", ModelOptions(recipe="metric", text_level="all", clip=clip)).kind == kind


def test_a_stack_reads_the_features_of_all_towers() -> None:
    config = stack()
    assert config.modalities == ("image", "text", "composition", "density")
    assert config.joins_features
    assert config.inputs["composition"].backbone == "elements"
    # Its towers are models of their own: dense layers on images and texts, Gaussian processes on the others.
    heads = [config.tower(name).head.name for name in config.modalities]
    assert heads == ["network", "network", "gaussian-process", "gaussian-process"]
    assert config.inputs["image"].backbone == "efficientnet_lite0"


def test_the_published_stack_is_one_option_away() -> None:
    towers = [{"modality": "image"}, {"modality": "text"}]
    published = {"type": "stack", "target": "k_vrh", "towers": towers, "join": {"type": "network"}}
    assert stack(join="network", finetune=False) == parse_config(published)
    assert stack(tower_features="out-of-fold").modalities == ("image", "text")
    assert stack(dense=True, finetune=False) == parse_config(published)


def test_an_image_tower_reads_statistics_of_its_pixels() -> None:
    image = tower("image")
    assert (image.features.backbone, image.head.name) == ("pixel_statistics", "kernel")
    lite = tower("image", image_backbone="efficientnet_lite0")
    assert (lite.features.backbone, lite.is_network) == ("efficientnet_lite0", True)
    assert tower("image", finetune=True).phases == ("readout", "finetune")


def test_a_requested_value_takes_precedence() -> None:
    config = stack(towers=("composition", "text"), join="ridge", regressors={"composition": "trees"})
    assert (config.modalities, config.join.name) == (("text", "composition"), "ridge")
    assert (config.join.to_dict()["reads"], config.tower("composition").head.name) == ("predictions", "trees")
    assert tower("composition", composition_features="magpie").features.backbone == "magpie"
    assert tower("density", regressors={"density": "network"}).is_network
    images = tower("image", recipe="paper", views=4, average_views=False).features.to_dict()
    assert images["recipe"] == "paper"
    assert (images["views"], images["average"]) == (4, False)


def test_dense_layers_where_they_are_requested() -> None:
    assert isinstance(tower("composition", multi_task=True).head, NetworkHead)
    assert tower("composition", multi_task=True).auxiliary_targets == ("efermi", "formation_energy_per_atom")
    assert all(isinstance(one.head, NetworkHead) for one in stack(multi_task=True).towers)
    assert tower("composition", dense=True).features.backbone == "magpie"


def test_epochs_are_limited_in_every_phase() -> None:
    dual = build_config("clip", "k_vrh", ModelOptions(max_epochs=3))
    assert isinstance(dual, ContrastiveConfig)
    assert isinstance(dual.encoder, DualEncoder)
    assert [dual.phase(name).max_epochs for name in ("align", "readout", "finetune")] == [3, 3, 3]
    assert dual.phase("readout").learning_rate == 1.5e-4


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("imagf", {}, "kind is 'imagf'; choose from image"),
        ("text", {"image_size": 96}, "image_size has no effect on kind 'text'"),
        ("density", {"text_backbone": "mine"}, "text_backbone has no effect"),
        ("composition", {"average_views": False}, "average_views has no effect"),
        ("image", {"join": "ridge"}, "join has no effect"),
        ("image", {"regressors": {"text": "ridge"}}, "a regressor of 'text' has no effect"),
        ("stacked", {"towers": ("image", "sound")}, "towers holds 'sound'"),
        ("stacked", {"join": "rigde"}, "'rigde' is not a regressor; choose from network"),
        ("stacked", {"join": "ridge", "tower_features": "in-sample"}, "tower_features has no effect"),
        ("text", {"clip": "a"}, "clip has no effect"),
        ("clip", {"clip": "a", "image_size": 96}, "image_size has no effect"),
        ("baseline-mean", {"multi_task": True}, "multi_task is for dense readouts"),
        ("text", {"text_level": "some"}, "text_level is 'some'"),
    ],
)
def test_an_option_without_effect_is_refused(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_config(kind, "k_vrh", ModelOptions(**options))


def test_a_file_takes_precedence_over_options(tmp_path: Path) -> None:
    file = tmp_path / "text.toml"
    config = tower("text", finetune=False).replace(head=NetworkHead(widths=(16, 8), dropout=0.3))
    file.write_text("# a comment\n" + toml_of(config))
    fields = read_config(file, "text")
    assert "target" not in fields
    assert build_config("text", "k_vrh", ModelOptions(finetune=False, fields=fields)) == config
    with pytest.raises(ConfigurationError, match="has a configuration of kind 'text', not 'image'"):
        read_config(file, "image")


def test_a_file_of_version_1_is_read(tmp_path: Path) -> None:
    file = tmp_path / "stacked.toml"
    file.write_text('stack_towers = ["text", "composition"]\ntext_widths = [16, 8]\n[readout]\nlearning_rate = 0.01\n')
    config = build_config("stacked", "k_vrh", ModelOptions(fields=read_config(file, "stacked"), finetune=False))
    assert isinstance(config, StackConfig)
    assert config.modalities == ("text", "composition")
    assert config.tower("text").head == NetworkHead(widths=(16, 8), dropout=0.1)
    assert config.training.readout.learning_rate == 0.01


@pytest.mark.parametrize("content", [None, b"a = [", b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "broken.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"broken\.toml"):
        read_config(file, "text")
