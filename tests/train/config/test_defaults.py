"""What is trained where nothing is asked for, and that what is asked for wins."""

from __future__ import annotations

from train.config.config import NETWORK, TrainConfig
from train.config.defaults import recommended


def config(kind: str, dense: bool = False, **asked: object) -> TrainConfig:
    return TrainConfig.from_dict({"kind": kind, "target": "k_vrh", **recommended(kind, asked, dense=dense)})


def test_a_stack_reads_the_features_of_all_towers() -> None:
    stack = config("stacked")
    assert stack.towers == ("image", "text", "composition", "density")
    assert stack.joins_features
    assert stack.composition_backbone == "elements"
    # Image and text towers follow the paper's protocol; the others are Gaussian processes.
    alone = {tower: stack.tower_config(tower).regressor(tower) for tower in stack.towers}
    assert alone == {
        "image": NETWORK, "text": NETWORK, "composition": "gaussian-process", "density": "gaussian-process",
    }  # fmt: skip


def test_the_published_stack_is_one_option_away() -> None:
    published = config("stacked", join=NETWORK)
    assert published == TrainConfig(kind="stacked", target="k_vrh")
    assert config("stacked", stack_features="out-of-fold").towers == ("image", "text")


def test_an_image_tower_reads_statistics_of_its_pixels() -> None:
    image = config("image")
    assert (image.image_backbone, image.image_regressor) == ("pixel_statistics", "kernel")
    lite = config("image", image_backbone="efficientnet_lite0")
    assert (lite.image_backbone, lite.is_network) == ("efficientnet_lite0", True)


def test_what_is_asked_for_wins() -> None:
    stack = config("stacked", stack_towers=["composition", "text"], join="ridge", composition_regressor="trees")
    assert (stack.towers, stack.join, stack.composition_regressor) == (("text", "composition"), "ridge", "trees")
    assert config("composition", composition_backbone="magpie").composition_backbone == "magpie"
    assert config("density", density_regressor=NETWORK).is_network


def test_dense_readouts_where_they_are_meant() -> None:
    assert config("composition", dense=True).is_network
    dense = config("stacked", dense=True)
    assert dense.composition_regressor == dense.density_regressor == NETWORK
    assert config("image", dense=True) == TrainConfig(kind="image", target="k_vrh")
