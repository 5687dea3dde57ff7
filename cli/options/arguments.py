"""Options that several commands share, as annotated types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    "none_or",
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
EncoderOption = Annotated[
    str | None,
    typer.Option("--encoder", metavar="NAME", help="Encoder or alias of one; by default the alias `default`."),
]
KOption = Annotated[int, typer.Option("-k", min=1, max=100_000, help="Number of neighbours, 100000 at most.")]
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
TextLevelOption = Annotated[str, typer.Option("--text-level", metavar="NAME", help="formula, keywords or all.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of every random choice.")]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Stop after this number.")]
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
    typer.Option(
        "--level-of-theory",
        metavar="NAME",
        help="Level of theory of a density, where its file does not state it: GGA, ...",
    ),
]


def none_or(value: str) -> str | None:
    """None for the value ``none`` of an option, else the value."""
    return None if value == "none" else value
