"""Options that several commands share, and how a command gets its database."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from ecdreg import Registry
    from registry.settings import Settings

__all__ = [
    "ConfidenceOption",
    "DensityOption",
    "EncoderOption",
    "JsonOption",
    "KOption",
    "LevelOfTheoryOption",
    "LimitOption",
    "RecipeOption",
    "ReferenceOption",
    "SeedOption",
    "SplitOption",
    "StructureOption",
    "TargetOption",
    "TextLevelOption",
    "WhereOption",
    "at_end",
    "command_group",
    "none_or",
    "open_engine",
    "open_registry",
    "settings",
]

at_end = ExitStack()
"""What is to be closed when the command is over; ``cli.main`` does so."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
EncoderOption = Annotated[
    str | None,
    typer.Option("--encoder", metavar="NAME", help="Encoder or alias of one; by default the alias `default`."),
]
KOption = Annotated[int, typer.Option("-k", min=1, max=100_000, help="How many neighbours, 100000 at most.")]
WhereOption = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="FILTER",
        help="Filter on columns of v_materials, as \"k_vrh > 100 AND 'O' = ANY (elements)\".",
    ),
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option("--target", metavar="TARGET", help="Target property; may be given more than once. All by default."),
]
SplitOption = Annotated[str, typer.Option("--split", metavar="NAME", help="Split to train and score on.")]
RecipeOption = Annotated[str, typer.Option("--recipe", metavar="NAME", help="Image recipe.")]
TextLevelOption = Annotated[str, typer.Option("--text-level", metavar="LEVEL", help="formula, keywords or all.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of every random choice.")]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Stop after so many.")]
StructureOption = Annotated[
    Path | None,
    typer.Option("--structure", metavar="FILE", help="Crystal structure: CIF, POSCAR, .vasp or pymatgen JSON."),
]
DensityOption = Annotated[
    Path | None, typer.Option("--density", metavar="FILE", help="Charge density: CHGCAR, cube or HDF5, also .gz.")
]
ReferenceOption = Annotated[
    Path | None,
    typer.Option(
        "--reference", metavar="FILE", help="Density of the superposed free atoms on the same grid, as CHGCAR."
    ),
]
ConfidenceOption = Annotated[
    float,
    typer.Option(
        "--confidence",
        "--interval",
        metavar="SHARE",
        help="Confidence of the prediction intervals: the share of true values that they are made to contain.",
    ),
]
LevelOfTheoryOption = Annotated[
    str | None,
    typer.Option("--level-of-theory", metavar="NAME", help="Of the density, where its file does not say: GGA, ..."),
]


def command_group(help: str) -> typer.Typer:
    """A group of commands with the settings that all share."""
    return typer.Typer(
        help=help, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False
    )


def none_or(value: str) -> str | None:
    """A name, or None where the option says ``none``: a split that does without."""
    return None if value == "none" else value


def settings() -> Settings:
    """Settings of the environment."""
    from registry.settings import Settings

    return Settings.from_environ()


def open_engine(*, check_schema: bool = True) -> Engine:
    """Engine on the registry's database; starts and upgrades the embedded one where needed.

    It is closed when the command is over.

    Raises
    ------
    EcdregError
        As :func:`registry.database.connect`; the error boundary turns it into an exit code.
    """
    from registry.database import connect

    chosen = settings()
    if chosen.embedded and not (chosen.postgres_data / "PG_VERSION").exists():
        output.note(f"making the embedded database in {chosen.postgres_data}")
    engine = connect(chosen, check_schema=check_schema)
    at_end.callback(engine.dispose)
    return engine


def open_registry() -> Registry:
    """Open the registry, as :func:`open_engine` does; it is closed when the command is over.

    Raises
    ------
    EcdregError
        As :func:`open_engine`.
    """
    from ecdreg import Registry

    return Registry(open_engine(), settings())
