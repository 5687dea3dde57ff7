from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from registry.errors import ModelError
from tests.train.conftest import flat_config
from train.backbones.image import ImageBackbone
from train.backbones.image_loaders import load_image_backbone
from train.backbones.text import TextBackbone, load_text_backbone
from train.config.config import TrainConfig
from train.config.phases import PhaseConfig
from train.models.building import build_network
from train.models.networks import Network, StackedNetwork, Tower
from train.models.optimization import encode, fit, predict, to_inputs
from train.models.scalers import FEATURE_LIMIT, StandardScaler

PHASE = PhaseConfig(learning_rate=1e-2, batch_size=8)
TEXTS = ["MgO is Halite structured.", "All Mg-O bond lengths are 2.12 Å.", "TiWMn2 is Heusler.", "NaCl"] * 3


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory, write_image_folder: Callable[..., Path]) -> ImageBackbone:
    """A tiny residual network with BatchNorm."""
    folder = write_image_folder(tmp_path_factory.mktemp("models") / "cnn", "test_resnet", num_classes=2)
    return load_image_backbone(str(folder), channels=["total"], image_size=32)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory, write_text_folder: Callable[..., Path]) -> TextBackbone:
    """A tiny BERT."""
    return load_text_backbone(str(write_text_folder(tmp_path_factory.mktemp("models") / "bert", "bert")), max_tokens=20)


@pytest.fixture
def pixels() -> Tensor:
    return torch.rand(12, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def config(kind: Any, **fields: Any) -> TrainConfig:
    widths = {"image_widths": (16, 8), "text_widths": (8, 6), "stacked_widths": (5,)}
    own = widths if kind == "stacked" else {f"{kind}_widths": widths[f"{kind}_widths"]}
    return flat_config(kind, **own, **fields)


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def changes(network: Network, inputs: Any, *, epochs: int = 2) -> set[str]:
    """Names of the weights and statistics that a fit changes."""
    before = state(network)
    n = len(next(iter(inputs.values())))
    fit(network, inputs, np.linspace(-1, 1, n), phase=PHASE, seed=0, epochs=epochs)
    after = network.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_layers_are_the_published_ones() -> None:
    def dense(network: Network) -> list[tuple[int, int]]:
        return [(m.in_features, m.out_features) for m in network.readout.modules() if isinstance(m, nn.Linear)]

    image = build_network(flat_config("image", "k_vrh"), {"image": 2048}, 0)
    text = build_network(flat_config("text", "k_vrh"), {"text": 768}, 0)
    assert dense(image) == [(2048, 1024), (1024, 512), (512, 256), (256, 1)]
    assert dense(text) == [(768, 512), (512, 512), (512, 256), (256, 1)]
    stack = build_network(flat_config("stacked", "k_vrh"), {}, 0, towers={"image": image, "text": text})  # type: ignore[dict-item]
    assert dense(stack) == [(512, 256), (256, 1)]
    for network, rate in ((image, 0.2), (text, 0.1), (stack, 0.1)):
        layers = list(network.readout.body)
        assert [type(layer).__name__ for layer in layers[:4]] == ["Linear", "ReLU", "BatchNorm1d", "Dropout"]
        assert {layer.p for layer in layers if isinstance(layer, nn.Dropout)} == {rate}
        assert network.width == 256


def test_same_seed_same_weights_and_torchs_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    one, two, other = (build_network(config("image"), {"image": 4}, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.readout.head.weight, other.readout.head.weight)


def test_each_call_gives_fresh_weights() -> None:
    """Trap 1: nothing that one fold learns is in the network of the next."""
    first = build_network(config("image"), {"image": 4}, 0)
    fresh = state(first)
    changes(first, to_inputs(image=np.random.default_rng(0).normal(size=(12, 4))))
    second = build_network(config("image"), {"image": 4}, 0)
    assert all(torch.equal(second.state_dict()[name], value) for name, value in fresh.items())
    assert not torch.equal(first.readout.head.weight, second.readout.head.weight)


def test_backbones_are_copied_for_each_fold(cnn: ImageBackbone, pixels: Tensor) -> None:
    """Trap 1, of the backbone."""
    pristine = cnn.weights_sha256
    tower = build_network(config("image"), {"image": cnn.dim}, 0)
    assert isinstance(tower, Tower)
    tower.attach(cnn)
    tower.set_phase("finetune")
    changes(tower, {"image": pixels})
    assert tower.backbone is not None
    assert tower.backbone.weights_sha256 != pristine
    assert cnn.weights_sha256 == pristine == load_image_backbone(cnn.name, channels=["total"]).weights_sha256


def test_features_are_standardised_by_the_scaler_and_clamped() -> None:
    tower = build_network(config("image"), {"image": 3}, 0)
    assert isinstance(tower, Tower)
    tower.scale.set(StandardScaler(np.array([1.0, 0.0, 0.0]), np.array([2.0, 1.0, 1e-6])))
    features = tower.forward_features({"image": torch.tensor([[3.0, -0.5, 1.0]])})
    assert features.tolist() == [[1.0, -0.5, FEATURE_LIMIT]]
    with pytest.raises(ModelError, match="scaler"):
        tower.scale.set(StandardScaler(np.zeros(2), np.ones(2)))


def test_features_and_raw_inputs_give_the_same(cnn: ImageBackbone, pixels: Tensor) -> None:
    tower = build_network(config("image"), {"image": cnn.dim}, 0)
    assert isinstance(tower, Tower)
    features = cnn.features(pixels)
    tower.scale.set(StandardScaler.fit(features))
    from_features = predict(tower, to_inputs(image=features))
    tower.attach(cnn)
    np.testing.assert_allclose(predict(tower, {"image": pixels}), from_features, atol=1e-4)


# ------------------------------------------------------------ trap 5: what each phase changes


def test_readout_phase_changes_the_readout_alone(cnn: ImageBackbone, pixels: Tensor) -> None:
    tower = build_network(config("image"), {"image": cnn.dim}, 0)
    assert isinstance(tower, Tower)
    tower.attach(cnn)
    assert {name for name, p in tower.named_parameters() if p.requires_grad} == {
        name for name, _ in tower.named_parameters() if name.startswith("readout.")
    }
    changed = changes(tower, {"image": pixels})
    assert changed == {name for name in tower.state_dict() if name.startswith("readout.")}


def test_finetune_phase_changes_every_weight_and_the_readouts_statistics(cnn: ImageBackbone, pixels: Tensor) -> None:
    tower = build_network(config("image"), {"image": cnn.dim}, 0)
    assert isinstance(tower, Tower)
    tower.attach(cnn)
    tower.set_phase("finetune")
    weights = {name for name, _ in tower.named_parameters()}
    statistics = {name for name, _ in tower.named_buffers() if name.startswith("readout.")}
    kept = {name for name, _ in tower.named_buffers() if name.startswith("backbone.")}
    assert any(name.endswith("running_mean") for name in kept)
    assert changes(tower, {"image": pixels}) == weights | statistics


def test_phases_of_a_text_tower(bert: TextBackbone) -> None:
    tower = build_network(config("text"), {"text": bert.dim}, 0)
    assert isinstance(tower, Tower)
    tower.attach(bert)
    assert changes(tower, {"text": TEXTS}) == {name for name in tower.state_dict() if name.startswith("readout.")}
    tower.set_phase("finetune")
    changed = changes(tower, {"text": TEXTS})
    backbone = {name for name, _ in tower.named_parameters() if name.startswith("backbone.")}
    # Keys' biases cancel in the softmax, and only embeddings that occur are looked at.
    idle = {name for name in backbone - changed if not name.endswith("key.bias")}
    assert not idle


def test_frozen_backbones_are_in_evaluation_mode(bert: TextBackbone) -> None:
    tower = build_network(config("text"), {"text": bert.dim}, 0)
    assert isinstance(tower, Tower)
    tower.attach(bert)
    assert tower.backbone is not None
    tower.train()
    assert tower.readout.training
    assert not any(module.training for module in tower.backbone.modules())
    tower.set_phase("finetune")
    assert any(module.training for module in tower.backbone.modules() if isinstance(module, nn.Dropout))
    tower.eval()
    assert not any(module.training for module in tower.modules())


def stack_of(dims: dict[str, int]) -> StackedNetwork:
    towers = {name: build_network(config(name), dims, 1) for name in dims}
    stack = build_network(config("stacked"), dims, 0, towers=towers)  # type: ignore[arg-type]
    assert isinstance(stack, StackedNetwork)
    return stack


def stack_inputs(n: int = 12) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"image": torch.randn(n, 4, generator=generator), "text": torch.randn(n, 3, generator=generator)}


def test_phases_of_a_stack_on_features() -> None:
    stack = stack_of({"image": 4, "text": 3})
    inputs = stack_inputs()
    assert changes(stack, inputs) == {name for name in stack.state_dict() if name.startswith("readout.")}
    stack.set_phase("finetune")
    changed = changes(stack, inputs)
    bodies = {n for n, _ in stack.named_parameters() if n.startswith("towers.") and ".head." not in n}
    assert changed == bodies | {n for n in stack.state_dict() if n.startswith("readout.")}


def test_phases_of_a_stack_with_backbones(cnn: ImageBackbone, bert: TextBackbone, pixels: Tensor) -> None:
    stack = stack_of({"image": cnn.dim, "text": bert.dim})
    stack.tower("image").attach(cnn)
    stack.tower("text").attach(bert)
    stack.set_phase("readout")
    inputs = {"image": pixels, "text": TEXTS}
    assert changes(stack, inputs) == {name for name in stack.state_dict() if name.startswith("readout.")}
    stack.set_phase("finetune")
    changed = changes(stack, inputs)
    assert {name for name, _ in cnn.named_parameters()} <= {n.removeprefix("towers.image.backbone.") for n in changed}
    statistics = {name for name, _ in stack.named_buffers() if name.startswith("towers.")}
    assert not changed & statistics


def test_a_stack_joins_its_towers_side_by_side() -> None:
    stack = stack_of({"image": 4, "text": 3})
    inputs = stack_inputs()
    joined = encode(stack, inputs, joined=True)
    assert joined.shape == (12, 8 + 6)
    np.testing.assert_array_equal(joined[:, :8], encode(stack.tower("image"), inputs))
    np.testing.assert_array_equal(joined[:, 8:], encode(stack.tower("text"), inputs))
    np.testing.assert_allclose(predict(stack, to_inputs(joined=joined)), predict(stack, inputs), rtol=1e-5)
    assert encode(stack, inputs).shape == (12, 5)


def test_a_stack_takes_copies_of_its_towers() -> None:
    image, text = (build_network(config(name), {name: 4}, 1) for name in ("image", "text"))
    before = state(image)
    stack = build_network(config("stacked"), {}, 0, towers={"image": image, "text": text})  # type: ignore[dict-item]
    stack.set_phase("finetune")
    changes(stack, {"image": torch.randn(12, 4), "text": torch.randn(12, 4)})
    assert all(torch.equal(image.state_dict()[name], value) for name, value in before.items())


# --------------------------------------------------------------------------------- errors


def test_wrong_inputs_are_refused(pixels: Tensor) -> None:
    tower = build_network(config("image"), {"image": 4}, 0)
    with pytest.raises(ModelError, match="give it 'image'"):
        predict(tower, {"text": ["MgO"]})
    with pytest.raises(ModelError, match="3 image features, the tower takes 4"):
        predict(tower, {"image": torch.zeros(2, 3)})
    with pytest.raises(ModelError, match="without backbone"):
        predict(tower, {"image": pixels})
    stack = stack_of({"image": 4, "text": 3})
    with pytest.raises(ModelError, match=r"\(N, 14\)"):
        predict(stack, {"joined": torch.zeros(2, 3)})
    stack.set_phase("finetune")
    with pytest.raises(ModelError, match="cannot fine-tune"):
        fit(stack, {"joined": torch.zeros(4, 14)}, np.zeros(4), phase=PHASE, seed=0, epochs=1)
    with pytest.raises(ModelError, match="no 'sound' tower"):
        stack.tower("sound")
    with pytest.raises(ModelError, match="only a stack"):
        encode(tower, {"image": torch.zeros(2, 4)}, joined=True)


def test_wrong_backbones_and_configs_are_refused(cnn: ImageBackbone) -> None:
    tower = build_network(config("image"), {"image": 4}, 0)
    assert isinstance(tower, Tower)
    with pytest.raises(ModelError, match="tower takes 4"):
        tower.attach(cnn)
    with pytest.raises(ModelError, match="is not a network"):
        build_network(flat_config("baseline-mean", "k_vrh"), {}, 0)
    with pytest.raises(ModelError, match="input_dims lacks 'text'"):
        build_network(config("stacked"), {"image": 4}, 0)
    with pytest.raises(ModelError, match="for a stack of image, text"):
        build_network(config("stacked"), {}, 0, towers={"image": tower})
