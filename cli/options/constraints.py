"""Options of searches by properties (constraints, objectives, elements), and the cells of their tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ecdreg.search.property_search import PropertyEstimate

__all__ = [
    "AllElementsOption",
    "AnyElementsOption",
    "ConstraintOption",
    "ObjectiveOption",
    "WithoutOption",
    "columns_of",
    "value_cell",
]

ConstraintOption = Annotated[
    list[str] | None,
    typer.Option("--constraint", "--want", metavar="PROPERTY=LOW:HIGH", help="Range of a property; may be repeated."),
]
ObjectiveOption = Annotated[
    list[str] | None,
    typer.Option(
        "--objective",
        "--prefer",
        metavar="PROPERTY=min|max|NUMBER",
        help="Order of the crystals that meet the constraints; may be repeated.",
    ),
]
AnyElementsOption = Annotated[
    str, typer.Option("--elements-any", metavar="Ti,Zr", help="At least one of these elements.", show_default=False)
]
AllElementsOption = Annotated[
    str, typer.Option("--elements-all", metavar="Ti,O", help="Every one of these elements.", show_default=False)
]
WithoutOption = Annotated[
    str, typer.Option("--without", metavar="Pb,Cd", help="None of these elements.", show_default=False)
]


def columns_of(names: Sequence[str]) -> dict[str, str]:
    """Headings of the columns of properties, with their units.

    Parameters
    ----------
    names
        Of :data:`registry.properties.PROPERTIES`.
    """
    from registry.properties import PROPERTIES

    return {name: f"{PROPERTIES[name].label} [{PROPERTIES[name].unit}]" for name in names}


def value_cell(value: PropertyEstimate) -> str:
    """A value in a table: ``212 known``, or ``212 (195 to 230) predicted``."""
    if value.known:
        return f"{value.value:.4g} known"
    interval = "" if value.lower is None or value.upper is None else f" ({value.lower:.3g} to {value.upper:.3g})"
    return f"{value.value:.4g}{interval} predicted"
