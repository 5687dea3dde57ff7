"""Each use case gives the same result from the command line and from Python, with default arguments."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import pytest

from ecdreg import Registry
from ecdreg.reproduction.paper import ReproductionResult, plan_reproduction
from ecdreg.results import Results
from registry.errors import ConfigurationError
from registry.settings import Settings
from tests.conftest import Invocation, Invoke

UseCases = dict[str, tuple[tuple[str, ...], Callable[[Registry], Results[object]]]]

MG_O = """MgO
4.21
0.0 0.5 0.5
0.5 0.0 0.5
0.5 0.5 0.0
Mg O
1 1
direct
0.0 0.0 0.0
0.5 0.5 0.5
"""


@pytest.fixture
def registry(settings: Settings, cluster_url: str) -> Iterator[Registry]:
    with Registry.open(settings.home, cluster_url) as opened:
        yield opened


def plain(value: object) -> object:
    """The value as the command line prints it."""
    return json.loads(json.dumps(value))


def printed(done: Invocation) -> list[dict[str, object]]:
    """The JSON output of a command."""
    assert done.exit_code == 0, done.stderr
    rows: list[dict[str, object]] = json.loads(done.stdout)
    return rows


WITHOUT_MODELS: UseCases = {
    "crystal": (("similar", "mp-1"), lambda r: r.similar("mp-1")),
    "text": (("similar", "--text", "hard titanium oxide"), lambda r: r.similar(text="hard titanium oxide")),
    "explained": (("similar", "mp-1", "--explain"), lambda r: r.similar("mp-1", explain=True)),
    "nothing": (("similar", "mp-1", "--where", "k_vrh > 1e6"), lambda r: r.similar("mp-1", where="k_vrh > 1e6")),
    "properties": (("properties", "list"), lambda r: r.properties()),
    "encoders": (("encoders", "list"), lambda r: r.encoders()),
    "search": (("search", "--constraint", "k_vrh=100:"), lambda r: r.search(["k_vrh=100:"])),
    "evaluation": (("evaluate", "search"), lambda r: r.evaluate_search()),
    "indexes": (("index", "status"), lambda r: r.index_status()),
    "building": (("index", "build"), lambda r: r.build_indexes()),
    "dropping": (("index", "drop", "--all"), lambda r: r.drop_indexes(all_encoders=True)),
}


@pytest.mark.parametrize("name", WITHOUT_MODELS)
def test_use_cases_without_models(
    invoke: Invoke, registry: Registry, vectors: dict[str, list[float]], name: str
) -> None:
    arguments, call = WITHOUT_MODELS[name]
    done = invoke(*arguments, "--json")
    result = call(registry)
    assert printed(done) == plain(result.to_dicts())
    lines = done.stderr.splitlines()
    assert [note for note in result.notes if note not in lines] == []


def test_added_property(invoke: Invoke, registry: Registry) -> None:
    command = invoke("properties", "add", "hardness", "--unit", "GPa", "--range", "0:150", "--json")
    (row,) = printed(command)
    registry.remove_property("hardness")
    added = registry.add_property("hardness", unit="GPa", plausible_range=(0, 150))
    assert [row] == plain(added.to_dicts())
    assert list(added.notes) == command.stderr.splitlines()
    assert json.loads(invoke("properties", "remove", "hardness", "--json").stdout) == row


def test_default_encoder(invoke: Invoke, registry: Registry, vectors: dict[str, list[float]]) -> None:
    (made,) = printed(invoke("encoders", "add", "pettifor", "--json"))
    assert made == plain(registry.add_encoder("pettifor").to_dict())
    (row,) = printed(invoke("encoders", "default", "pettifor", "--json"))
    chosen = registry.set_default_encoder("pettifor")
    assert row == {"alias": "default", "encoder": chosen.encoder, "modality": chosen.modality, "dim": chosen.dim}
    assert "default" in chosen.aliases


WITH_MODELS: UseCases = {
    "prediction": (
        ("predict", "baseline-magpie", "s-1", "s-9"),
        lambda r: r.predict("baseline-magpie", ["s-1", "s-9"]),
    ),
    "explanation": (("explain", "baseline-magpie:k_vrh", "s-1"), lambda r: r.explain("baseline-magpie:k_vrh", "s-1")),
    "search": (("search", "--constraint", "k_vrh=100:"), lambda r: r.search(["k_vrh=100:"])),
    "proposals": (("propose",), lambda r: r.propose()),
    "proposals by constraint": (
        ("propose", "--want", "k_vrh=50:", "--prefer", "k_vrh=max", "--like", "s-9", "-k", "2"),
        lambda r: r.propose(["k_vrh=50:"], ["k_vrh=max"], like="s-9", k=2),
    ),
}


@pytest.mark.parametrize("name", WITH_MODELS)
def test_use_cases_with_models(invoke: Invoke, registry: Registry, baseline: None, name: str) -> None:
    arguments, call = WITH_MODELS[name]
    done = invoke(*arguments, "--json")
    result = call(registry)
    assert printed(done) == plain(result.to_dicts())
    lines = done.stderr.splitlines()
    assert [note for note in result.notes if note not in lines] == []
    assert len(result) > 0


def test_prediction_for_a_file(invoke: Invoke, registry: Registry, baseline: None, tmp_path: Path) -> None:
    file = tmp_path / "MgO.vasp"
    file.write_text(MG_O)
    rows = printed(invoke("predict", "baseline-magpie", "--structure", file, "--json"))
    assert rows == plain(registry.predict("baseline-magpie", structure=file).to_dicts())


def test_page_of_an_explanation(invoke: Invoke, registry: Registry, baseline: None, tmp_path: Path) -> None:
    pages = [tmp_path / "command.html", tmp_path / "library.html"]
    assert invoke("explain", "baseline-magpie:k_vrh", "s-1", "-o", pages[0]).exit_code == 0
    registry.explain("baseline-magpie:k_vrh", "s-1", page=pages[1])
    assert pages[0].read_text(encoding="utf-8") == pages[1].read_text(encoding="utf-8")
    with pytest.raises(ConfigurationError, match="no such folder"):
        registry.explain("nothing", "s-1", page=tmp_path / "no" / "page.html")


def test_imported_split(invoke: Invoke, registry: Registry, crystals: dict[str, int], tmp_path: Path) -> None:
    lines = [f"mp-{i},{'holdout,' if i % 4 == 0 else f'cv,{i % 4 - 1}'}" for i in range(1, 25)]
    file = tmp_path / "mine.csv"
    file.write_text("\n".join(["id,subset,fold", *lines]) + "\n", encoding="utf-8")
    done = invoke("split", "import", file, "--target", "k_vrh", "--json")
    made = registry.import_split(file, targets=["k_vrh"])
    assert [row | {"created_at": ""} for row in printed(done)] == plain(
        [row | {"created_at": ""} for row in made.to_dicts()]
    )
    assert [warning for warning in made.warnings if warning not in done.stderr] == []


def test_reproduction_and_the_figure_of_its_scores(
    invoke: Invoke, registry: Registry, crystals: dict[str, int], tmp_path: Path
) -> None:
    """The command trains with seed 1 and the library with seed 2; each finds what the other has trained."""
    split = "mine-{target}-{seed}"

    def command(seed: int) -> Invocation:
        return invoke(
            "reproduce", "paper", "--target", "k_vrh", "--seed", seed, "--stage", "text", "--text-level", "formula",
            "--split", split, "--make-splits", "--json",
        )  # fmt: skip

    def call(seed: int) -> ReproductionResult:
        return registry.reproduce_paper(
            targets=["k_vrh"], seeds=[seed], stages=["text"], text_levels=["formula"], split=split, make_splits=True
        )  # fmt: skip

    first, second = command(1), call(2)
    assert json.loads(first.stdout) == plain(call(1).to_dict())
    assert json.loads(command(2).stdout) == plain(second.to_dict())
    files = [tmp_path / "command.png", tmp_path / "library.png"]
    done = invoke("plot", "scores", "--target", "k_vrh", "--seed", 1, "--split", split, "-o", files[0])
    assert done.exit_code == 0, done.stderr
    plan = plan_reproduction(targets=["k_vrh"], seeds=[1], split=split)
    registry.plot("scores", files[1], plan=plan)
    assert files[0].read_bytes() == files[1].read_bytes()


DEFAULTS: dict[str, tuple[str, Callable[..., object]]] = {
    "predict": ("cli.commands.predict:predict", Registry.predict),
    "similar": ("cli.commands.similar:similar", Registry.similar),
    "search": ("cli.commands.search:search", Registry.search),
    "split import": ("cli.commands.split:import_", Registry.import_split),
    "split create": ("cli.commands.split:create", Registry.create_split),
    "propose": ("cli.commands.propose:propose", Registry.propose),
    "explain": ("cli.commands.explain:explain", Registry.explain),
    "evaluate search": ("cli.commands.evaluate:search", Registry.evaluate_search),
    "report": ("cli.commands.report:report", Registry.report),
    "properties add": ("cli.commands.properties:add", Registry.add_property),
    "index build": ("cli.commands.index:build", Registry.build_indexes),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_options_and_arguments_have_the_same_defaults(name: str) -> None:
    """Arguments of one name have one default; None, no value and an empty one are the same."""
    path, function = DEFAULTS[name]
    module, _, attribute = path.partition(":")
    command = getattr(import_module(module), attribute)
    options, arguments = (
        {n: p.default for n, p in inspect.signature(f).parameters.items()} for f in (command, function)
    )
    shared = options.keys() & arguments.keys()
    assert len(shared) >= 1
    for argument in shared:
        assert (options[argument] or None) == (arguments[argument] or None), argument
