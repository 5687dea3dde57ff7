"""Reports and figures of the library: the same files as those of the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure

from ecdreg import Registry
from ecdreg.figures.catalog import FIGURES
from ecdreg.output.rendering import environment, render
from registry.errors import ConfigurationError, UnknownNameError
from registry.settings import Settings
from tests.conftest import Invoke


@pytest.fixture
def registry(settings: Settings, cluster_url: str) -> Iterator[Registry]:
    with Registry.open(settings.home, cluster_url) as opened:
        yield opened


@pytest.mark.parametrize("suffix", [".png", ".html"])
@pytest.mark.parametrize("name", ["composition", "fourier", "map"])
def test_figure_from_python_is_that_of_the_command(
    invoke: Invoke, registry: Registry, vectors: dict[str, list[float]], tmp_path: Path, name: str, suffix: str
) -> None:
    by_command, by_python = tmp_path / f"command{suffix}", tmp_path / f"python{suffix}"
    assert invoke("plot", name, "-o", by_command).exit_code == 0
    assert isinstance(registry.plot(name, by_python), Figure)
    assert by_python.read_bytes() == by_command.read_bytes()


def test_report_from_python_is_that_of_the_command(
    invoke: Invoke, registry: Registry, models: SimpleNamespace, tmp_path: Path
) -> None:
    by_command, by_python = tmp_path / "command.html", tmp_path / "python.html"
    assert invoke("report", "image:k_vrh", "-o", by_command).exit_code == 0
    assert registry.report("image:k_vrh", by_python) == by_python
    pages = [re.sub(r"<footer>.*</footer>", "", p.read_text("utf-8"), flags=re.DOTALL) for p in (by_command, by_python)]
    assert pages[0] == pages[1]


def test_unknown_figure_and_unsuitable_path(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'composition'"):
        registry.plot("compositions")
    with pytest.raises(ConfigurationError, match=r"must end in \.png, \.svg, \.pdf or \.html"):
        registry.plot("composition", tmp_path / "figure.gif")


def test_every_figure_has_a_command() -> None:
    from cli.commands.plot import group

    assert {command.name for command in group.registered_commands} == set(FIGURES.names())


def test_templates_compile_and_escape() -> None:
    names = environment().list_templates()
    pages = [name for name in names if name.endswith(".html.j2")]
    assert len(pages) >= 8
    for name in pages:
        environment().get_template(name)
    assert "<title>a &lt; b</title>" in render("figures/figure.html.j2", title="a < b", image="")


def test_missing_variable_of_a_template_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="image"):
        render("figures/figure.html.j2", title="x")
