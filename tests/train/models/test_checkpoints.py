from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from registry.errors import ArtifactError, IncompatibleInputError, ModelError
from tests.train.conftest import flat_config
from train.backbones.image import ImageBackbone
from train.backbones.image_loaders import load_image_backbone
from train.config.config import TrainConfig
from train.config.phases import PhaseConfig
from train.models.building import build_network
from train.models.checkpoints import from_bytes, to_bytes
from train.models.networks import StackedNetwork, Tower
from train.models.optimization import fit, predict, to_inputs
from train.models.safetensors_io import pack, unpack
from train.models.scalers import StandardScaler

CONFIG = flat_config("image", image_widths=(16, 8))
SCALER = StandardScaler(np.float64(100.1), np.float64(1 / 3))


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory, write_image_folder: Callable[..., Path]) -> ImageBackbone:
    folder = write_image_folder(tmp_path_factory.mktemp("models") / "cnn", "test_resnet", num_classes=2)
    return load_image_backbone(str(folder), channels=["total"], image_size=32)


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(12, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def trained(config: TrainConfig, dims: dict[str, int], *, seed: int = 0) -> tuple[Any, dict[str, torch.Tensor]]:
    network = build_network(config, dims, seed)
    rng = np.random.default_rng(seed)
    inputs = to_inputs(**{name: rng.normal(3, 2, size=(20, dim)) for name, dim in dims.items()})
    if isinstance(network, Tower):
        network.scale.set(StandardScaler.fit(inputs[network.modality]))
    fit(network, inputs, rng.normal(size=20), phase=PhaseConfig(learning_rate=1e-2), seed=0, epochs=3)
    return network, inputs  # type: ignore[return-value]


def test_a_tower_comes_back_to_the_last_bit() -> None:
    network, inputs = trained(CONFIG, {"image": 5})
    data = to_bytes(network, CONFIG, target_scaler=SCALER, phase="readout", extra={"recipe_sha256": "abc"})
    back = from_bytes(data)
    np.testing.assert_array_equal(predict(back.network, inputs), predict(network, inputs))
    assert back.config.to_dict() == CONFIG.to_dict()
    assert (back.target_scaler.mean, back.target_scaler.scale) == (SCALER.mean, SCALER.scale)
    assert (back.phase, back.extra, back.backbones) == ("readout", {"recipe_sha256": "abc"}, {})
    for name, value in network.state_dict().items():
        assert torch.equal(back.network.state_dict()[name], value)


def test_a_stack_comes_back_with_its_towers() -> None:
    config = flat_config("stacked", "k_vrh", image_widths=(16, 8), text_widths=(8, 6), stacked_widths=(5,))
    network, inputs = trained(config, {"image": 5, "text": 3})
    back = from_bytes(to_bytes(network, config, target_scaler=SCALER, phase="finetune"))
    assert isinstance(back.network, StackedNetwork)
    np.testing.assert_array_equal(predict(back.network, inputs), predict(network, inputs))


def test_same_network_same_bytes() -> None:
    (one, _), (two, _) = (trained(CONFIG, {"image": 5}) for _ in range(2))
    data = [to_bytes(network, CONFIG, target_scaler=SCALER, phase="readout") for network in (one, two)]
    assert data[0] == data[1]


def test_it_is_safetensors_and_no_pickle() -> None:
    from safetensors.torch import load

    network, _ = trained(CONFIG, {"image": 5})
    data = to_bytes(network, CONFIG, target_scaler=SCALER, phase="readout")
    assert set(load(data)) == set(network.state_dict())
    length = int.from_bytes(data[:8], "little")
    about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["ecdreg"])
    assert about["config"] == CONFIG.to_dict()
    assert about["format"] == 1


# ------------------------------------------------------------------------------ backbones


def test_a_frozen_backbone_is_named_and_not_stored(cnn: ImageBackbone, pixels: torch.Tensor) -> None:
    network, _ = trained(CONFIG, {"image": cnn.dim})
    bare = to_bytes(network, CONFIG, target_scaler=SCALER, phase="readout", backbones={"image": cnn})
    network.attach(cnn)
    attached = to_bytes(network, CONFIG, target_scaler=SCALER, phase="readout", backbones={"image": cnn})
    assert bare == attached
    back = from_bytes(bare, backbones={"image": cnn})
    record = back.backbones["image"]
    assert (record.weights_sha256, record.stored) == (cnn.weights_sha256, False)
    assert (record.spec, record.preprocessing) == (cnn.spec(), cnn.preprocessing())
    np.testing.assert_array_equal(predict(back.network, to_inputs(image=cnn.features(pixels))).shape, (12,))


def test_another_backbone_is_refused(
    cnn: ImageBackbone, tmp_path: Path, write_image_folder: Callable[..., Path]
) -> None:
    network, _ = trained(CONFIG, {"image": cnn.dim})
    data = to_bytes(network, CONFIG, target_scaler=SCALER, phase="readout", backbones={"image": cnn})
    folder = write_image_folder(tmp_path / "other", "test_resnet", seed=1)
    with pytest.raises(ArtifactError, match="trained on"):
        from_bytes(data, backbones={"image": load_image_backbone(str(folder), channels=["total"], image_size=32)})
    for changed in ({"channels": ["deformation"], "image_size": 32}, {"channels": ["total"], "image_size": 64}):
        other = load_image_backbone(cnn.name, **changed)  # type: ignore[arg-type]
        with pytest.raises(IncompatibleInputError, match="otherwise"):
            from_bytes(data, backbones={"image": other})


@pytest.mark.parametrize("given", [False, True])
def test_a_fine_tuned_backbone_is_stored_and_comes_back(cnn: ImageBackbone, pixels: torch.Tensor, given: bool) -> None:
    network, _ = trained(CONFIG, {"image": cnn.dim})
    network.attach(cnn)
    network.set_phase("finetune")
    fit(network, {"image": pixels}, np.linspace(-1, 1, 12), phase=PhaseConfig(learning_rate=1e-3), seed=0, epochs=2)
    backbones = {"image": cnn} if given else None
    data = to_bytes(network, CONFIG, target_scaler=SCALER, phase="finetune", backbones=backbones)
    back = from_bytes(data, backbones=backbones)
    assert isinstance(back.network, Tower)
    assert back.network.backbone is not None
    assert back.backbones["image"].stored
    sums = {back.backbones["image"].weights_sha256, back.network.backbone.weights_sha256}
    assert sums == {network.backbone.weights_sha256}
    assert cnn.weights_sha256 not in sums
    np.testing.assert_allclose(predict(back.network, {"image": pixels}), predict(network, {"image": pixels}), atol=1e-6)


def test_a_stack_of_fine_tuned_towers_stores_them_after_its_readout_too(
    cnn: ImageBackbone, pixels: torch.Tensor
) -> None:
    config = flat_config("stacked", "k_vrh", image_widths=(16, 8), text_widths=(8, 6), stacked_widths=(5,))
    image, _ = trained(CONFIG, {"image": cnn.dim})
    image.attach(cnn)
    image.set_phase("finetune")
    fit(image, {"image": pixels}, np.linspace(-1, 1, 12), phase=PhaseConfig(learning_rate=1e-3), seed=0, epochs=1)
    text, _ = trained(flat_config("text", "k_vrh", text_widths=(8, 6)), {"text": 3})
    stack = build_network(config, {}, 0, towers={"image": image, "text": text})
    data = to_bytes(stack, config, target_scaler=SCALER, phase="readout", backbones={"image": cnn})
    back = from_bytes(data)
    inputs = {"image": pixels, "text": torch.zeros(12, 3)}
    np.testing.assert_allclose(predict(back.network, inputs), predict(stack, inputs), atol=1e-6)


# --------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("damage", ["empty", "short", "rubbish", "foreign", "newer", "kind", "config", "weights"])
def test_damaged_bytes_are_refused(damage: str) -> None:
    from safetensors.torch import save

    network, _ = trained(CONFIG, {"image": 5})
    data = to_bytes(network, CONFIG, target_scaler=SCALER, phase="readout")
    tensors, about = unpack(data, kind="network")
    broken = {
        "empty": b"",
        "short": data[: len(data) // 2],
        "rubbish": b"\x80\x04" + data,
        "foreign": save({"x": torch.zeros(1)}),
        "newer": save(tensors, metadata={"ecdreg": json.dumps({**about, "format": 99})}),
        "kind": pack(tensors, kind="baseline-mean", about={}),
        "config": save(tensors, metadata={"ecdreg": json.dumps({**about, "config": {"kind": "image"}})}),
        "weights": save({"x": torch.zeros(1)}, metadata={"ecdreg": json.dumps(about)}),
    }
    with pytest.raises(ArtifactError):
        from_bytes(broken[damage])


def test_a_diverged_network_is_not_saved() -> None:
    network = build_network(CONFIG, {"image": 5}, 0)
    with torch.no_grad():
        network.readout.head.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"readout\.head\.weight"):
        to_bytes(network, CONFIG, target_scaler=SCALER, phase="readout")
    with pytest.raises(ModelError, match="JSON"):
        pack({}, kind="network", about={"x": object()})
