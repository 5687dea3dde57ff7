"""Ingestion, splits, training and models give the same results from the command line and from Python, by default."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ecdreg import Registry
from tests.conftest import Invoke
from train.config.config import TrainConfig
from train.experiments.results import ExperimentResult

METALS = ("Li", "Na", "K", "Mg", "Ca", "Ti", "V", "Zr", "Sc", "Mn")
ANIONS = ("O", "S", "Se")
MOMENTS = {"seconds", "created", "created_at", "finished"}
"""Fields that differ between two runs of the same work."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset folder of 30 formulas with the three targets of the paper."""
    folder = tmp_path / "salts"
    folder.mkdir()
    pairs = [(metal, anion) for anion in ANIONS for metal in METALS]
    lines = [
        f"s-{i},{metal}{anion},{-1.0 - 0.05 * i},{0.3 * i - 1.0},{40.0 + 9.0 * (i % 7)}"
        for i, (metal, anion) in enumerate(pairs)
    ]
    heading = "id,formula,formation_energy_per_atom,efermi,k_vrh"
    (folder / "properties.csv").write_text("\n".join([heading, *lines]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def registry(new_database: Callable[[], str], tmp_path: Path) -> Iterator[Registry]:
    """A registry beside that of the command line."""
    with Registry.open(tmp_path / "other home", new_database()) as opened:
        yield opened


def plain(value: object) -> Any:
    """JSON values without the fields that differ between two runs of the same work."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items() if name not in MOMENTS}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def test_the_main_job(
    invoke: Invoke, registry: Registry, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def compare(result: Any, *arguments: object) -> Any:
        """The result of the command, which must be that of Python."""
        done = invoke(*arguments, "--json")
        assert done.exit_code == 0, done.stderr
        printed = json.loads(done.stdout)
        made = result.to_dicts() if hasattr(result, "to_dicts") else result.to_dict()
        assert plain(printed) == plain(json.loads(json.dumps(made, default=str)))
        for note in getattr(result, "notes", ()):
            assert note in done.stderr
        return printed

    source = f"{folder}/"
    ingested = compare(registry.ingest(source, workers=0), "ingest", "--source", source, "--workers", 0)
    assert ingested["in_registry"] == 30
    compare(
        registry.create_split("default", recipe=None, text_level=None),
        *("split", "create", "default", "--recipe", "none", "--text-level", "none"),
    )
    compare(registry.splits(), "split", "list")
    compare(registry.show_split("default", members=True), "split", "show", "default", "--members")
    trained = compare(registry.train("composition"), "train", "composition")
    assert {one["target"] for one in trained["experiments"]} == {"formation_energy_per_atom", "efermi", "k_vrh"}
    again = registry.train("composition", targets=["k_vrh"])
    assert again.notes == ("composition:k_vrh@1 had been trained already; --again trains a new version",)
    compare(again, "train", "composition", "--target", "k_vrh")
    compare(registry.train("baseline"), "train", "baseline")
    assert compare(registry.leaderboard(), "leaderboard")
    assert compare(registry.models(), "models", "list")
    compare(registry.show_model("composition"), "models", "show", "composition")
    compare(
        registry.compare_models("composition", ["baseline-mean"]),
        *("models", "compare", "composition", "baseline-mean"),
    )
    compare(registry.model_coverage("composition:k_vrh"), "models", "coverage", "composition:k_vrh")
    compare(registry.set_alias("composition:k_vrh", "mine"), "models", "alias", "composition:k_vrh", "mine")
    tuned = compare(
        registry.tune("composition", targets=["k_vrh"], trials=1),
        *("tune", "composition", "--target", "k_vrh", "--trials", 1),
    )
    assert Path(tuned[0]["file"]).read_text(encoding="utf-8").count("elements") == 1


@dataclass(frozen=True)
class Run:
    """Arguments of an experiment."""

    config: TrainConfig
    given: dict[str, object]


KINDS = ("image", "text", "composition", "density", "stacked", "clip", "baseline")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The experiments that would be run."""
    found: list[Run] = []

    def run(context: object, config: TrainConfig, **given: object) -> ExperimentResult:
        found.append(Run(config, given))
        return ExperimentResult(0, config.kind, config.target, 1, "trained", {}, {}, 0, 0, 0.0)

    monkeypatch.setattr("train.experiments.run.run_experiment", run)
    monkeypatch.setattr("ecdreg.models.training._add_fingerprint", lambda *_: [])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_the_same_configuration_by_default(
    invoke: Invoke, registry: Registry, folder: Path, trained: list[Run], kind: str
) -> None:
    """Among them the stack: one Gaussian process on the features of four towers."""
    invoke("ingest", "--source", f"{folder}/", "--workers", 0)
    invoke("split", "create", "default", "--recipe", "none", "--text-level", "none")
    done = invoke("train", kind)
    assert done.exit_code == 0, done.stderr
    from_command = list(trained)
    trained.clear()
    registry.ingest(f"{folder}/", workers=0)
    registry.create_split("default", recipe=None, text_level=None)
    registry.train(kind)
    assert trained == from_command
    assert len(trained) == (6 if kind == "baseline" else 3)
    if kind == "stacked":
        config = trained[0].config.to_dict()
        assert config["join"]["name"] == "gaussian-process"
        assert [tower["modality"] for tower in config["towers"]] == ["image", "text", "composition", "density"]


def test_a_default_kind_is_the_stack(registry: Registry, folder: Path, trained: list[Run]) -> None:
    registry.ingest(f"{folder}/", workers=0)
    registry.create_split("default", recipe=None, text_level=None)
    registry.train(targets=["k_vrh"])
    assert [run.config.to_dict()["type"] for run in trained] == ["stack"]
