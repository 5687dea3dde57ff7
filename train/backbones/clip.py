"""Image and text encoders of a CLIP: slices and texts -> unit vectors in a shared space.

Both are read from one folder in transformers' layout. The image encoder follows its image processor (Radford et al.,
arXiv 2103.00020): resize of the shorter edge to the documented size, bicubic; centre crop; normalisation of values in
[0, 1] by mean and standard deviation. Instead of eight-bit colours, each channel of a slice is mapped by the fixed
scale of its kind to [0, 1], replicated to three channels and encoded as one view; the vector of the image is the
normalised mean of the views' projections. Vectors of images and texts therefore have the same dimension for every
recipe: 512 for ViT-B/32, and 1024 for both side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from registry.errors import ConfigurationError
from train.backbones.image import ImageBackbone, PretrainedImageNetwork
from train.backbones.resolve import find_folder, hub_folder, load_exactly, read_json, read_weights
from train.backbones.text import FILES, PretrainedTextNetwork, TextBackbone, load_tokenizer

__all__ = ["LAYOUT", "ClipImageBackbone", "ClipTextBackbone", "load_clip_image", "load_clip_text"]

LAYOUT = (
    "config.json (of model_type clip), preprocessor_config.json, model.safetensors (or pytorch_model.bin) and the"
    " tokenizer's files (transformers' layout: tokenizer.json or vocab.json with merges.txt, and tokenizer_config.json)"
)

# Numbers of resampling methods in Pillow, as in image processors.
_RESAMPLING: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class _Processor:
    """Parameters of a CLIP's image processor."""

    mean: tuple[float, float, float]
    """Mean of values in [0, 1]."""
    std: tuple[float, float, float]
    """Standard deviation of values in [0, 1]."""
    shortest_edge: int
    """Length of the shorter edge after resizing [pixels]."""
    crop: int
    """Side of the centre crop [pixels]."""
    mode: Literal["bilinear", "bicubic"]


class ClipImageBackbone(ImageBackbone):
    """Image encoder of a CLIP, with the adapter of the module's docstring; constructed by :func:`load_clip_image`."""

    def __init__(self, name: str, network: nn.Module, processor: _Processor, *, channels: Sequence[str]) -> None:
        self._processor = processor
        pretrained = PretrainedImageNetwork(
            network, processor.mean, processor.std, min_size=processor.crop, fixed_size=processor.crop
        )
        super().__init__(name, pretrained, channels=channels, image_size=processor.crop)
        self.dim = pretrained.dim  # the mean over views, not their concatenation

    def resize(self, views: Tensor) -> Tensor:
        """Resize of the shorter edge and centre crop of views in [0, 1], (N, C, H, W) -> (N, C, S, S)."""
        edge, crop = self._processor.shortest_edge, self._processor.crop
        height, width = views.shape[-2:]
        if min(height, width) != edge:
            # As in the image processor, the longer edge is rounded down.
            size = (edge, int(edge * width / height)) if height <= width else (int(edge * height / width), edge)
            views = nn.functional.interpolate(views, size=size, mode=self._processor.mode, antialias=True).clamp(0, 1)
        top, left = (int((length - crop) / 2.0) for length in views.shape[-2:])
        return views[..., top : top + crop, left : left + crop]

    def forward(self, pixels: Tensor) -> Tensor:
        """Unit vectors, (N, C, H, W) in the unit of the recipe -> (N, dim)."""
        views = self.prepare(pixels)
        projected = self._network(pixel_values=views.flatten(0, 1)).image_embeds  # N C x D
        unit = nn.functional.normalize(projected, dim=1)
        return nn.functional.normalize(unit.reshape(*views.shape[:2], self.dim).mean(1), dim=1)

    def preprocessing(self) -> dict[str, Any]:
        """Description of the adapter and of the mean over views."""
        return super().preprocessing() | {
            "family": "clip",
            "resize": {
                "size": self._processor.crop,
                "shortest_edge": self._processor.shortest_edge,
                "mode": self._processor.mode,
                "antialias": True,
            },
            "pooling": "projection, unit length; mean over channels, unit length",
        }

    def spec(self) -> dict[str, Any]:
        """Name and channels."""
        return {"modality": "image", "family": "clip", "name": self.name, "channels": list(self.channels)}


class ClipTextBackbone(TextBackbone):
    """Text encoder of a CLIP; constructed by :func:`load_clip_text`.

    The projection of a text is that of its end token, as in the training of CLIP, without a mean over tokens.
    """

    def __init__(self, name: str, pretrained: PretrainedTextNetwork, *, max_tokens: int) -> None:
        super().__init__(name, pretrained, max_tokens=max_tokens)
        self.dim = int(pretrained.network.config.projection_dim)  # type: ignore[union-attr, arg-type]

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors of N texts, (N, dim)."""
        device = next(self._network.parameters()).device
        tokens = {name: values.to(device) for name, values in self.tokenize(texts).items()}
        return nn.functional.normalize(self._network(**tokens).text_embeds, dim=1)

    def preprocessing(self) -> dict[str, Any]:
        """Description of token limit, pooling and normalisation."""
        return super().preprocessing() | {"family": "clip", "pooling": "projection of the end token"}

    def spec(self) -> dict[str, Any]:
        """Name and token limit."""
        return super().spec() | {"family": "clip"}


def load_clip_image(name: str, *, channels: Sequence[str], models: Path | None = None) -> ClipImageBackbone:
    """Load the image encoder of a CLIP with its pre-trained weights, in evaluation mode.

    Parameters
    ----------
    name
        Folder in transformers' layout, as a path or under ``ECDREG_MODELS``; otherwise a hub id such as
        ``openai/clip-vit-base-patch32``.
    channels
        Kind of each channel of the slices, from ``CHANNEL_SCALES``.
    models
        Folder of pre-trained backbones; None is ``ECDREG_MODELS``.

    Raises
    ------
    ConfigurationError
        If the CLIP is neither available locally nor on the hub, its files do not fit, or a channel kind is unknown.
    """
    from transformers import CLIPVisionModelWithProjection

    folder = _folder(name, models)
    config = _config(folder)
    processor = _processor(folder, int(config.vision_config.image_size))
    network = CLIPVisionModelWithProjection(config.vision_config)
    # Attribute that PretrainedImageNetwork.dim reads.
    network.head_hidden_size = config.projection_dim
    _load(network, folder, others=("text_model.", "text_projection.", "vision_model.embeddings.position_ids"))
    return ClipImageBackbone(name, network, processor, channels=channels)


def load_clip_text(name: str, *, max_tokens: int, models: Path | None = None) -> ClipTextBackbone:
    """Load the text encoder of a CLIP with its pre-trained weights, in evaluation mode.

    Parameters
    ----------
    name
        As for :func:`load_clip_image`.
    max_tokens
        Largest number of tokens of a text, including special tokens; the CLIP's limit applies if it is smaller.
    models
        Folder of pre-trained backbones; None is ``ECDREG_MODELS``.

    Raises
    ------
    ConfigurationError
        If the CLIP is neither available locally nor on the hub, or its files do not fit.
    """
    from transformers import CLIPTextModelWithProjection

    folder = _folder(name, models)
    config = _config(folder)
    network = CLIPTextModelWithProjection(config.text_config)
    _load(network, folder, others=("vision_model.", "visual_projection.", "text_model.embeddings.position_ids"))
    tokenizer = load_tokenizer(folder, layout=LAYOUT)
    limit = int(min(tokenizer.model_max_length, config.text_config.max_position_embeddings))
    return ClipTextBackbone(name, PretrainedTextNetwork(network, tokenizer, limit, True), max_tokens=max_tokens)


def _folder(name: str, models: Path | None) -> Path:
    folder = find_folder(name, models=models)
    if folder is None:
        if name.startswith(("/", ".", "~")):
            raise ConfigurationError(f"there is no folder {name!r}; it must contain {LAYOUT}")
        folder = hub_folder(name, name, files=FILES, layout=LAYOUT)
    return folder


def _config(folder: Path) -> Any:
    from transformers import CLIPConfig

    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"{folder} has no config.json; a CLIP needs {LAYOUT}")
    kind = read_json(folder / "config.json").get("model_type")
    if kind != "clip":
        raise ConfigurationError(f"{folder / 'config.json'} is of a {kind!r} model, not a CLIP; it needs {LAYOUT}")
    config: Any = CLIPConfig.from_pretrained(folder, local_files_only=True)
    for half in (config.vision_config, config.text_config):
        # The dimension in the configuration of an encoder is not that of the shared space.
        half.projection_dim = config.projection_dim
    return config


def _load(network: nn.Module, folder: Path, *, others: tuple[str, ...]) -> None:
    tensors = read_weights(folder, layout=LAYOUT)
    load_exactly(network, tensors, source=str(folder), ignore=(*others, "logit_scale"))


def _processor(folder: Path, image_size: int) -> _Processor:
    """Read the parameters of the image processor, of which the file depends on the age of the folder."""
    own, whole = folder / "preprocessor_config.json", folder / "processor_config.json"
    if own.is_file():
        documented = read_json(own)
    elif whole.is_file():
        documented = read_json(whole).get("image_processor", {})
    else:
        raise ConfigurationError(f"{folder} has no preprocessor_config.json; a CLIP needs {LAYOUT}")
    size, crop = documented.get("size"), documented.get("crop_size")
    edge = size.get("shortest_edge") if isinstance(size, dict) else size
    kept = crop.get("height") if isinstance(crop, dict) else crop
    mode = _RESAMPLING.get(documented.get("resample", 3))
    mean, std = documented.get("image_mean"), documented.get("image_std")
    if not (mode and isinstance(edge, int) and kept == image_size <= edge and mean and std):
        raise ConfigurationError(
            f"the image processor of {folder} is not that of a CLIP (size {size}, crop {crop}, resample"
            f" {documented.get('resample')}, images of {image_size} pixels); give the CLIP's preprocessor_config.json"
        )
    return _Processor(_three(mean), _three(std), edge, kept, mode)


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    first, second, third = (float(v) for v in torch.as_tensor(values, dtype=torch.float64))
    return first, second, third
