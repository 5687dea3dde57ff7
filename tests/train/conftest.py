"""Backbones for the tests of train: the two that packages bring, and tiny ones in the real file layouts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from train.backbones import ImageBackbone, TextBackbone, load_image_backbone, load_text_backbone

TEXTS = ["MgO is Halite structured.", "All Mg-O bond lengths are 2.12 Å.", "TiWMn2 is Heusler structured."]


@pytest.fixture(scope="session")
def lite0() -> ImageBackbone:
    """EfficientNet-Lite0 on two channels at 64 pixels; tests must not train it."""
    return load_image_backbone("efficientnet_lite0", channels=["total", "deformation"], image_size=64)


@pytest.fixture(scope="session")
def minilm() -> TextBackbone:
    """MiniLM on keywords; tests must not train it."""
    return load_text_backbone("minilm", max_tokens=100)


@pytest.fixture(scope="session")
def write_image_folder() -> Callable[..., Path]:
    """Writes a randomly initialised timm network as timm's hub has it."""

    def write(folder: Path, architecture: str, *, seed: int = 0, **arguments: Any) -> Path:
        import timm
        from timm.models import save_for_hf

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = timm.create_model(architecture, pretrained=False, **arguments)
        folder.mkdir(parents=True)
        save_for_hf(network, str(folder), safe_serialization=True)
        return folder

    return write


@pytest.fixture(scope="session")
def write_text_folder() -> Callable[..., Path]:
    """Writes a tiny BERT or RoBERTa, randomly initialised, with a tokenizer trained on three sentences."""

    def write(folder: Path, kind: str, *, seed: int = 0, head: bool = False) -> Path:
        import tokenizers
        import transformers

        folder.mkdir(parents=True)
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        config: Any
        if kind == "bert":
            trained: Any = tokenizers.BertWordPieceTokenizer()
            trained.train_from_iterator(TEXTS, vocab_size=200, show_progress=False)
            trained.save_model(str(folder))
            config = transformers.BertConfig(
                vocab_size=trained.get_vocab_size(), max_position_embeddings=64, pad_token_id=0, **sizes
            )
            settings = {"tokenizer_class": "BertTokenizer", "model_max_length": 64, "do_lower_case": True}
        else:
            special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
            trained = tokenizers.ByteLevelBPETokenizer()
            trained.train_from_iterator(TEXTS, vocab_size=300, special_tokens=special, show_progress=False)
            trained.save_model(str(folder))
            config = transformers.RobertaConfig(
                vocab_size=trained.get_vocab_size(), max_position_embeddings=34, pad_token_id=1, bos_token_id=0,
                eos_token_id=2, type_vocab_size=1, **sizes,
            )  # fmt: skip
            settings = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 512}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            # A head, as the published checkpoints have one, puts a prefix before every weight's name.
            factory = transformers.AutoModelForMaskedLM if head else transformers.AutoModel
            network = factory.from_config(config)
        network.save_pretrained(folder)
        return folder

    return write
