"""The two halves of a CLIP, read from a folder in the layout of openai/clip-vit-base-patch32."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from registry.errors import ConfigurationError, ModelError
from train.backbones.clip import ClipImageBackbone, load_clip_image, load_clip_text
from train.backbones.text import load_text_backbone
from train.modalities import restore_featurizer

if TYPE_CHECKING:
    from transformers import CLIPModel

TEXTS = ["MgO is Halite structured.", "All Mg-O bond lengths are 2.12 Å.", "TiWMn2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, write_clip_folder: Callable[..., Path]) -> Path:
    return write_clip_folder(tmp_path_factory.mktemp("clip") / "tiny-clip")


@pytest.fixture(scope="module")
def whole(folder: Path) -> CLIPModel:
    """The same folder as transformers itself loads it."""
    from transformers import CLIPModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    return CLIPModel.from_pretrained(folder).eval()


def received(backbone: ClipImageBackbone, pixels: np.ndarray) -> torch.Tensor:
    """What the network gets."""
    received: list[torch.Tensor] = []
    hook = backbone.network.register_forward_pre_hook(
        lambda _, __, options: received.append(options["pixel_values"]), with_kwargs=True
    )
    backbone.features(pixels)
    hook.remove()
    return received[0]


def processor(folder: Path) -> Any:
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor.from_pretrained(folder)


def test_trap_4_the_tensor_that_clip_receives_is_what_its_processor_makes(folder: Path) -> None:
    """Of the same eight-bit picture: divided by 255 once, then normalised by CLIP's mean and deviation."""
    eight_bit = (np.arange(32 * 32).reshape(32, 32) * 7 % 256).astype(np.uint8)
    backbone = load_clip_image(str(folder), channels=["imported"])
    ours = received(backbone, (eight_bit / 255).astype(np.float32)[None, None])
    theirs = processor(folder)(np.stack([eight_bit] * 3, axis=-1), return_tensors="pt")["pixel_values"]
    assert ours.shape == theirs.shape == (1, 3, 32, 32)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert ours.max() - ours.min() > 3.5  # divided twice, the picture would be black: 0.015 instead


@pytest.mark.parametrize("shape", [(50, 50), (64, 40), (33, 90), (20, 20)])
def test_pictures_are_resized_and_cropped_as_the_processor_does(folder: Path, shape: tuple[int, int]) -> None:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    eight_bit = (127.5 + 120 * np.sin(x / 5) * np.cos(y / 7)).astype(np.uint8)
    backbone = load_clip_image(str(folder), channels=["imported"])
    ours = received(backbone, (eight_bit / 255).astype(np.float32)[None, None])
    theirs = processor(folder)(np.stack([eight_bit] * 3, axis=-1), return_tensors="pt")["pixel_values"]
    # The processor rounds to eight bits in each direction of resizing; 0.26 is the smallest deviation.
    assert (ours - theirs).abs().max() < 1.5 / 255 / 0.26


def test_halves_give_the_projections_of_the_whole(folder: Path, whole: CLIPModel) -> None:
    from transformers import AutoTokenizer

    pixels = np.random.default_rng(0).random((3, 1, 32, 32), dtype=np.float32)
    image = load_clip_image(str(folder), channels=["imported"])
    text = load_clip_text(str(folder), max_tokens=77)
    tokens = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = whole(pixel_values=image.prepare(torch.tensor(pixels)).flatten(0, 1), **tokens)
    assert image.dim == text.dim == 8
    np.testing.assert_allclose(image.features(pixels), expected.image_embeds.numpy(), atol=1e-6)
    np.testing.assert_allclose(text.features(TEXTS), expected.text_embeds.numpy(), atol=1e-6)


def test_an_image_has_the_dimension_of_a_text_whatever_its_channels(folder: Path) -> None:
    pixels = np.random.default_rng(1).random((2, 2, 40, 40), dtype=np.float32)
    both = load_clip_image(str(folder), channels=["imported", "imported"]).features(pixels)
    single = load_clip_image(str(folder), channels=["imported"])
    views = [single.features(pixels[:, [channel]]) for channel in (0, 1)]
    mean = torch.tensor((views[0] + views[1]) / 2)
    np.testing.assert_allclose(both, nn.functional.normalize(mean, dim=1).numpy(), atol=1e-6)


def test_texts_are_cut_to_77_tokens_and_do_not_change_each_other(folder: Path) -> None:
    backbone = load_clip_text(str(folder), max_tokens=512)
    assert backbone.max_tokens == 77
    tokens = backbone.tokenize(["bond " * 200, "MgO"])["input_ids"]
    assert tokens.shape == (2, 77)
    end = tokens.max()
    assert tokens[0, -1] == end  # the end token, from which the text's vector is projected, is not cut off
    together = backbone.features([TEXTS[0], "bond " * 200])
    np.testing.assert_allclose(together[0], backbone.features([TEXTS[0]])[0], atol=1e-6)


def test_weights_of_older_repositories(tmp_path: Path, folder: Path, write_clip_folder: Callable[..., Path]) -> None:
    """openai/clip-vit-base-patch32 itself has pytorch_model.bin; nothing but tensors is read of it."""
    old = write_clip_folder(tmp_path / "openai" / "clip-vit-base-patch32", pickled=True)
    by_name = load_clip_image("openai/clip-vit-base-patch32", channels=["total"], models=tmp_path)
    assert by_name.weights_sha256 == load_clip_image(str(folder), channels=["total"]).weights_sha256
    torch.save({"logit_scale": Path("not a tensor")}, old / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match=r"pytorch_model\.bin cannot be read"):
        load_clip_text("openai/clip-vit-base-patch32", max_tokens=77, models=tmp_path)
    torch.save({"logit_scale": 3}, old / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match="not a mapping of names to tensors"):
        load_clip_text("openai/clip-vit-base-patch32", max_tokens=77, models=tmp_path)


def test_the_processor_of_newer_folders_is_read(tmp_path: Path, write_clip_folder: Callable[..., Path]) -> None:
    new = write_clip_folder(tmp_path / "new")
    before = load_clip_image(str(new), channels=["total"]).preprocessing()
    documented = json.loads((new / "preprocessor_config.json").read_text())
    (new / "preprocessor_config.json").unlink()
    (new / "processor_config.json").write_text(json.dumps({"image_processor": documented}))
    assert load_clip_image(str(new), channels=["total"]).preprocessing() == before


def test_spec_and_preprocessing_survive_json(folder: Path) -> None:
    for backbone in (load_clip_image(str(folder), channels=["total"]), load_clip_text(str(folder), max_tokens=77)):
        assert json.loads(json.dumps(backbone.preprocessing())) == backbone.preprocessing()
        again = restore_featurizer(json.loads(json.dumps(backbone.spec())))
        assert type(again) is type(backbone)
        assert again.weights_sha256 == backbone.weights_sha256
        assert again.preprocessing() == backbone.preprocessing()


def test_folders_of_other_models_raise(tmp_path: Path, folder: Path, write_clip_folder: Callable[..., Path]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match=r"no config\.json.*preprocessor_config\.json.*tokenizer"):
        load_clip_text(str(tmp_path / "empty"), max_tokens=77)
    with pytest.raises(ConfigurationError, match=r"no folder.*it must contain config\.json"):
        load_clip_text("./nowhere", max_tokens=77)
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigurationError, match="'bert' model, not a CLIP"):
        load_clip_image(str(tmp_path / "empty"), channels=["total"])
    broken = write_clip_folder(tmp_path / "broken")
    (broken / "preprocessor_config.json").write_text('{"size": 224, "crop_size": 224}')
    with pytest.raises(ConfigurationError, match="image processor"):
        load_clip_image(str(broken), channels=["total"])
    (broken / "preprocessor_config.json").unlink()
    with pytest.raises(ConfigurationError, match=r"no preprocessor_config\.json"):
        load_clip_image(str(broken), channels=["total"])
    with pytest.raises(ConfigurationError, match=r"clip model.*ecdreg train clip"):
        load_text_backbone(str(folder), max_tokens=77)
    with pytest.raises(ModelError, match="text"):
        load_clip_text(str(folder), max_tokens=77)([" "])


def test_without_a_connection_the_error_names_the_required_files() -> None:
    expected = r"preprocessor_config\.json, model\.safetensors.*tokenizer.*ECDREG_MODELS/openai/clip-vit-base-patch32"
    with pytest.raises(ConfigurationError, match=expected):
        load_clip_image("openai/clip-vit-base-patch32", channels=["total"])
