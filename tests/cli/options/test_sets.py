"""Sets of options that commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer

from cli.groups import command_group
from cli.options.sets import with_option_sets


@dataclass(frozen=True)
class Colours:
    red: Annotated[int, typer.Option("--red", help="Red.")]
    blue: Annotated[list[int] | None, typer.Option("--blue", help="Blue.")] = None


@dataclass(frozen=True)
class Size:
    width: Annotated[float, typer.Option("--width", "-w", help="Width.")] = 2.0


@pytest.fixture
def received() -> list[tuple[Colours, Size, str]]:
    """Arguments of the calls of :func:`run`."""
    return []


def run(received: list[tuple[Colours, Size, str]], *arguments: str) -> None:
    app = command_group("A program.")

    @app.command()
    @with_option_sets
    def paint(colours: Colours, size: Size, name: Annotated[str, typer.Argument(help="Name.")] = "wall") -> None:
        """Paint it."""
        received.append((colours, size, name))

    typer.main.get_command(app)(args=list(arguments), standalone_mode=False)


def test_a_set_is_made_of_its_options(received: list[tuple[Colours, Size, str]]) -> None:
    run(received, "--red", "3", "--blue", "1", "--blue", "2", "-w", "4", "door")
    run(received, "--red", "5")
    assert received == [
        (Colours(red=3, blue=[1, 2]), Size(width=4.0), "door"),
        (Colours(red=5, blue=None), Size(width=2.0), "wall"),
    ]


def test_a_field_without_a_default_is_required(received: list[tuple[Colours, Size, str]]) -> None:
    with pytest.raises(typer.BadParameter.__base__, match="red"):  # type: ignore[arg-type]
        run(received)
    assert received == []
