"""Figures: the same files from Python as from the command line, and errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from matplotlib.figure import Figure
from pymatgen.core import Structure

from ecdreg import Registry
from ecdreg.figures.catalog import FIGURES
from ecdreg.figures.fields import field_scale, slices_figure
from ecdreg.figures.files import inline_svg
from ecdreg.figures.fold_curves import fold_curves_figure
from ecdreg.figures.predictions import parity_figure
from ecdreg.report.content import Point
from ecdreg.report.model import model_page
from registry.crystals import write_crystal
from registry.database import session_scope
from registry.errors import ConfigurationError, UnknownNameError
from registry.files.grids import GridStore
from registry.provenance import finish_run, start_run
from registry.settings import Settings
from tests.conftest import Invoke
from tests.ecdreg.reproduction.test_report import line
from tests.small_registry import crystal

if TYPE_CHECKING:
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


def test_figures_of_models_and_densities(
    invoke: Invoke, registry: Registry, models: SimpleNamespace, tmp_path: Path
) -> None:
    salt = Structure(np.eye(3) * 4.0, ["Li", "O"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    with session_scope(registry.engine) as session:
        run = start_run(session, source="other", source_release=None, parameters={})
        data = replace(crystal(0, source="other"), structure=salt.as_dict())
        write_crystal(session, data, run_id=run.id, grids=GridStore(registry.settings.grids_url))
        finish_run(session, run)
    for name, argument in (("curves", "image:k_vrh"), ("density", "other:mp-1")):
        by_command, by_python = tmp_path / f"command-{name}.png", tmp_path / f"python-{name}.png"
        done = invoke("plot", name, argument, "-o", by_command)
        assert done.exit_code == 0, done.stderr
        registry.plot(name, by_python, **{"models" if name == "curves" else "ids": [argument]})
        assert by_python.read_bytes() == by_command.read_bytes()


def test_unknown_figure_and_unsuitable_path(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'composition'"):
        registry.plot("compositions")
    with pytest.raises(ConfigurationError, match=r"must end in \.png, \.svg, \.pdf or \.html"):
        registry.plot("composition", tmp_path / "figure.gif")


def test_every_figure_has_a_command() -> None:
    from cli.commands.plot import group

    assert {command.name for command in group.registered_commands} == set(FIGURES.names())


def test_nothing_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="no predictions"):
        parity_figure([], target="k_vrh", unit="GPa")
    with pytest.raises(ValueError, match="no learning curves"):
        fold_curves_figure([])
    with pytest.raises(ValueError, match="no slices"):
        slices_figure([], channels=[], extent=None, unit=None)
    with pytest.raises(ValueError, match="no experiments"):
        model_page([])


def test_parity_of_a_single_point() -> None:
    point = Point("a:1", 1, "X", None, "validation", 0, 5.0, 5.0, None)
    assert inline_svg(parity_figure([point], target="k_vrh", unit="GPa"), "parity").startswith("<svg")


def test_signed_field_has_a_scale_around_zero() -> None:
    scale = field_scale([np.linspace(-1.0, 0.5, 101)])
    assert scale.signed
    assert scale.low == -scale.high
    assert not field_scale([np.linspace(-0.01, 3.0, 101)]).signed
    assert field_scale([np.zeros(9)]).high > 0


def test_scores_and_curves_are_drawn(tmp_path: Path) -> None:
    import numpy as np

    from ecdreg.figures.curves import Curve, draw_curves
    from ecdreg.figures.files import write_figure
    from ecdreg.figures.scores import draw_scores

    lines = [
        changed
        for target in ("formation_energy_per_atom", "k_vrh")
        for changed in (
            line("baseline-magpie", target=target),
            line("image", target=target),
            line("text", "formula", target=target),
            line("image+text", "formula", target=target),
        )
    ]
    figure = draw_scores(lines)
    # A column for each target, and panel c for their average.
    assert [panel.get_title(loc="left") for panel in figure.axes[:3]] == [
        "a  formation_energy_per_atom",
        "b  k_vrh",
        "c  average over targets",
    ]
    (legend,) = figure.legends
    labels = [entry.get_text() for entry in legend.get_texts()]
    assert labels == ["image", "text", "image+text", "published", "composition baseline"]
    write_figure(figure, tmp_path / "scores.svg")

    curves = [
        Curve("image:k_vrh@1", "readout", fold, np.geomspace(1, 0.1, 5 + fold), np.geomspace(1, 0.3, 5 + fold), 3)
        for fold in range(3)
    ]
    write_figure(draw_curves(curves), tmp_path / "curves.pdf")
    assert (tmp_path / "scores.svg").read_text(encoding="utf-8").startswith("<?xml")
    assert (tmp_path / "curves.pdf").read_bytes().startswith(b"%PDF")
