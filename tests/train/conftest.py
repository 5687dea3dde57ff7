"""Backbones for the tests of train, those that packages bring and tiny ones; and a small registry to train on."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
import torch
from numpy.typing import NDArray
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from registry.crystals import CrystalData, DensityData, DescriptionData, PropertyData, SliceData, write_crystal
from registry.database import DATABASE, connect, session_scope
from registry.files.grids import GridStore
from registry.jobs.progress import Progress
from registry.models import Crystal, CrystalRevision
from registry.postgres.embedded import EmbeddedServer
from registry.provenance import finish_run, start_run
from registry.settings import Settings
from registry.splits.creation import SplitRule, create_split
from train.backbones.image import ImageBackbone
from train.backbones.image_loaders import load_image_backbone
from train.backbones.text import TextBackbone, load_text_backbone
from train.config.config import TrainConfig
from train.config.kinds import parse_config
from train.experiments.context import ExperimentContext
from train.experiments.results import ExperimentResult
from train.experiments.run import run_experiment
from train.features.batch import Batch
from train.models.fitted import FitContext
from train.models.fitting import fit_model

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
    """Writes a tiny BERT or RoBERTa, randomly initialised, with a tokenizer of three sentences."""

    def write(folder: Path, kind: str, *, seed: int = 0, head: bool = False, positions: int = 34) -> Path:
        import tokenizers
        import transformers

        folder.mkdir(parents=True)
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        config: Any
        if kind == "bert":
            # Trained WordPiece vocabularies differ from run to run by equally frequent pairs, and so would the network.
            letters = sorted({letter for text in TEXTS for letter in text.lower() if not letter.isspace()})
            special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
            tokens = [*special, *letters, *(f"##{letter}" for letter in letters)]
            (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
            config = transformers.BertConfig(
                vocab_size=len(tokens), max_position_embeddings=64, pad_token_id=0, **sizes
            )
            settings = {"tokenizer_class": "BertTokenizer", "model_max_length": 64, "do_lower_case": True}
        else:
            special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
            trained: Any = tokenizers.ByteLevelBPETokenizer()
            trained.train_from_iterator(TEXTS, vocab_size=300, special_tokens=special, show_progress=False)
            trained.save_model(str(folder))
            config = transformers.RobertaConfig(
                vocab_size=trained.get_vocab_size(), max_position_embeddings=positions, pad_token_id=1, bos_token_id=0,
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


CLIP_PROCESSOR: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 32},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    "do_rescale": True,
    "rescale_factor": 0.00392156862745098,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "do_convert_rgb": True,
}
"""As openai/clip-vit-base-patch32 documents it, but for 32 pixels instead of 224."""


@pytest.fixture(scope="session")
def write_clip_folder() -> Callable[..., Path]:
    """Writes a tiny CLIP, randomly initialised, in the layout of openai/clip-vit-base-patch32."""

    def write(folder: Path, *, seed: int = 0, pickled: bool = False) -> Path:
        import tokenizers
        import transformers

        folder.mkdir(parents=True)
        special = ["<|startoftext|>", "<|endoftext|>"]
        letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
        merges = [("i", "s</w>"), ("b", "o"), ("bo", "n"), ("bon", "d</w>"), ("m", "g")]
        # As openai's: bytes, bytes that end a word, merges, and the two special tokens last.
        words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), *special]
        (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]))
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        config = transformers.CLIPConfig(
            text_config={
                **sizes,
                "vocab_size": len(words),
                "max_position_embeddings": 77,
                "bos_token_id": 0,
                "pad_token_id": 1,
                "eos_token_id": 2,  # no token's: the end token is found as the largest number
            },
            vision_config={**sizes, "image_size": 32, "patch_size": 16},
            projection_dim=8,
        )
        settings = {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": 77,
            "bos_token": special[0],
            "eos_token": special[1],
            "pad_token": special[1],
            "unk_token": special[1],
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        (folder / "preprocessor_config.json").write_text(json.dumps(CLIP_PROCESSOR))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = transformers.CLIPModel(config)
        network.save_pretrained(folder)
        if pickled:
            # openai's own repository has no other file of weights; position ids are among them.
            state = {**network.state_dict(), "text_model.embeddings.position_ids": torch.arange(77)[None]}
            torch.save(state, folder / "pytorch_model.bin")
            (folder / "model.safetensors").unlink()
        return folder

    return write


# ------------------------------------------------------------ a small registry to train on

ELEMENTS = ("Li", "Na", "K", "Mg", "Ca", "Sr", "Ti", "Zr")
PARTNERS = ("O", "S", "Se", "F", "Cl")
RECIPE: dict[str, Any] = {"recipe": "metric", "planes": [[1, -1, 0]], "kinds": ["total", "deformation"]}


@dataclass(frozen=True)
class SmallRegistry:
    """Forty crystals with labels that slices, texts and compositions each predict, and small configurations."""

    engine: Engine
    settings: Settings
    revisions: dict[str, int]
    """By source id."""
    image_backbone: str
    text_backbone: str
    clip: str
    """Folder of a tiny CLIP."""

    def fields(self, kind: str, target: str = "k_vrh", **changes: Any) -> dict[str, Any]:
        """Fields of a small network that trains in a second, in the flat notation of version 1."""
        config: dict[str, Any] = {"kind": kind, "target": target}
        if kind == "clip":
            config |= {"clip": self.clip}
        if kind == "dual-encoder":
            config |= {"image_backbone": self.image_backbone, "image_size": 32, "text_backbone": self.text_backbone}
            config |= {"projection_dim": 6, "projection_dropout": 0.1}
            config |= {"align": {"learning_rate": 1e-2, "max_epochs": 20, "patience": 5, "batch_size": 16}}
        if kind in ("image", "stacked"):
            config |= {"image_backbone": self.image_backbone, "image_size": 32, "image_widths": [16, 8]}
        if kind in ("text", "stacked"):
            config |= {"text_backbone": self.text_backbone, "text_widths": [16, 8]}
        if kind == "stacked":
            config |= {"stacked_widths": [8], "stack_features": "in-sample"}
        if not kind.startswith("baseline"):
            config |= {"readout": {"learning_rate": 1e-2, "max_epochs": 30, "patience": 8, "batch_size": 8}}
            config |= {"finetune": {"learning_rate": 1e-4, "max_epochs": 3, "patience": 2, "batch_size": 8}}
        return config | changes

    def config(self, kind: str, target: str = "k_vrh", **changes: Any) -> Any:
        """The configuration of :meth:`fields`."""
        return parse_config(self.fields(kind, target, **changes))

    def context(self, progress: Progress | None = None) -> ExperimentContext:
        """A context of experiments on this registry, with an empty cache."""
        return ExperimentContext.open(self.engine, self.settings, progress=progress)

    def run(self, config: TrainConfig, *, progress: Progress | None = None, **options: Any) -> ExperimentResult:
        """Train on the split ``small``; without baselines, unless ``options`` request them."""
        return run_experiment(self.context(progress), config, **({"split": "small", "baselines": False} | options))


def flat_config(kind: str, target: str = "k_vrh", **fields: Any) -> Any:
    """A configuration in the flat notation of version 1, which is short."""
    return parse_config({"kind": kind, "target": target, **fields})


def fit_phases(config: TrainConfig, batch: Batch, targets: NDArray[np.float64], **options: Any) -> Iterator[Any]:
    """The model of a configuration after each of its phases; ``options`` are fields of the context."""
    return fit_model(FitContext(config, batch, targets, **options))


def small_crystal(i: int, *, source: str = "test", level_of_theory: str = "GGA") -> CrystalData:
    """Crystal i of 40: stiffer with its elements, which its density, its text and its formula all show."""
    element, partner = ELEMENTS[i % len(ELEMENTS)], PARTNERS[i // len(ELEMENTS)]
    stiffness = (i % len(ELEMENTS)) / 7 + 0.3 * (i // len(ELEMENTS)) / 4
    edge = 6.5 - 1.5 * stiffness
    y, x = np.mgrid[-6:6:32j, -6:6:32j]
    wave = np.cos(2 * np.pi * x / edge) * np.cos(2 * np.pi * y / edge)
    pixels = np.stack([(0.05 + 2.0 * stiffness) * (1.1 + wave), 0.3 * stiffness * wave]).astype(np.float32)
    formula = f"{element}{partner}"
    kinds = ("total", "deformation")
    return CrystalData(
        source=source,
        source_id=f"mp-{i + 1}",
        formula=formula,
        structure={"lattice": {"matrix": (np.eye(3) * edge).tolist()}, "sites": []},
        space_group_number=225,
        space_group_symbol="Fm-3m",
        prototype="AB-cF8-225",
        n_sites=8,
        volume=edge**3,
        content_sha256=hashlib.sha256(f"{source}-{i}-{level_of_theory}".encode()).hexdigest(),
        properties=(
            PropertyData("k_vrh", 40.0 + 120.0 * stiffness, "GGA"),
            PropertyData("efermi", 4.0 * stiffness - 1.0, "GGA"),
        ),
        densities=tuple(
            DensityData(kind, level_of_theory, np.full((2, 2, 2), 0.1, np.float32), np.eye(3) * edge) for kind in kinds
        ),
        slices=(SliceData("metric", RECIPE, "e/Å^3", pixels, tuple((kind, level_of_theory) for kind in kinds)),),
        descriptions=(
            DescriptionData(
                "keywords", f"{formula}. All {element}-{partner} bond lengths are {edge / 2:.2f} Å.", "test"
            ),
        ),
    )


def write_small(engine: Engine, home: Path, crystals: Iterable[CrystalData]) -> None:
    """Write crystals in one run of ingestion and commit."""
    with session_scope(engine) as session:
        run = start_run(session, source="test", source_release=None, parameters={})
        for data in crystals:
            write_crystal(session, data, run_id=run.id, grids=GridStore((home / "grids").as_uri()))
        finish_run(session, run)


@pytest.fixture(scope="session")
def tiny_backbones(
    tmp_path_factory: pytest.TempPathFactory,
    write_image_folder: Callable[..., Path],
    write_text_folder: Callable[..., Path],
) -> tuple[str, str]:
    """Folders of a tiny image network and a tiny text network."""
    folder = tmp_path_factory.mktemp("backbones")
    image = write_image_folder(folder / "tiny-image", "test_efficientnet")
    return str(image), str(write_text_folder(folder / "tiny-text", "bert"))


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory, write_clip_folder: Callable[..., Path]) -> str:
    """Folder of a tiny CLIP."""
    return str(write_clip_folder(tmp_path_factory.mktemp("clips") / "tiny-clip"))


@pytest.fixture(scope="session")
def small_template(cluster: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name of a database with forty crystals and the split ``small`` (3 folds) for ``k_vrh`` and ``efermi``."""
    name = "small_template"
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {DATABASE}")
    home = tmp_path_factory.mktemp("small")
    engine = connect(Settings(home=home, database_url=cluster.url(name)))
    write_small(engine, home, (small_crystal(i) for i in range(40)))
    with session_scope(engine) as session:
        for target in ("k_vrh", "efermi"):
            create_split(session, "small", target=target, rule=SplitRule(n_folds=3, holdout=0.2))
    engine.dispose()
    return name


@pytest.fixture
def small(
    cluster: EmbeddedServer, small_template: str, home: Path, tiny_backbones: tuple[str, str], tiny_clip: str
) -> Iterator[SmallRegistry]:
    """A registry of the test's own, cloned from :func:`small_template`."""
    name = f"small_{next(_clones)}"
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {small_template}")
        settings = Settings(home=home, database_url=cluster.url(name))
        engine = connect(settings)
        with Session(engine) as session:
            found = session.execute(select(Crystal.source_id, CrystalRevision.id).join(CrystalRevision)).all()
        yield SmallRegistry(engine, settings, dict(found), *tiny_backbones, tiny_clip)
        engine.dispose()
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def crystal_of() -> Callable[..., CrystalData]:
    """:func:`small_crystal`, for tests that change one."""
    return small_crystal


@pytest.fixture
def write(small: SmallRegistry) -> Callable[..., None]:
    """Write crystals into the test's registry."""

    def write(*crystals: CrystalData) -> None:
        write_small(small.engine, small.settings.home, crystals)

    return write


_clones = itertools.count(1)
