"""Fixtures of the commands; those of the small registry are shared with the library."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.rock_salts import baseline, salts
from tests.small_registry import crystals, models, vectors

__all__ = ["baseline", "crystals", "models", "salts", "timed", "tiny_image", "vectors"]


@pytest.fixture
def timed() -> Callable[..., tuple[float, subprocess.CompletedProcess[str]]]:
    """Runs a program: the processor time that it took [s], which a busy machine hardly changes, and its answer."""

    def run(command: list[Any], env: Mapping[str, str] | None = None) -> tuple[float, subprocess.CompletedProcess[str]]:
        def used() -> float:
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            return usage.ru_utime + usage.ru_stime

        before = used()
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        return used() - before, done

    return run


@pytest.fixture(scope="session")
def tiny_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny image network in timm's layout."""
    import timm
    import torch
    from timm.models import save_for_hf

    folder = tmp_path_factory.mktemp("backbones") / "tiny-image"
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        save_for_hf(timm.create_model("test_efficientnet", pretrained=False), str(folder), safe_serialization=True)
    return folder
