"""Options of the commands that look for properties: what is wished, preferred, and of which elements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from registry.search.constraints import Value
    from train.discovery.property_search import Elements

__all__ = [
    "AllElementsOption",
    "AnyElementsOption",
    "PreferOption",
    "WantOption",
    "WithoutOption",
    "cell",
    "columns_of",
    "elements_of",
    "value_json",
]

WantOption = Annotated[
    list[str] | None,
    typer.Option("--want", metavar="PROPERTY=LOW:HIGH", help="A range that a property should lie in; may be repeated."),
]
PreferOption = Annotated[
    list[str] | None,
    typer.Option("--prefer", metavar="PROPERTY=min|max|NUMBER", help="Which ones come first; may be repeated."),
]
AnyElementsOption = Annotated[
    str | None, typer.Option("--elements-any", metavar="Ti,Zr", help="At least one of these elements.")
]
AllElementsOption = Annotated[
    str | None, typer.Option("--elements-all", metavar="Ti,O", help="Every one of these elements.")
]
WithoutOption = Annotated[str | None, typer.Option("--without", metavar="Pb,Cd", help="Not one of these elements.")]


def elements_of(any_of: str | None, all_of: str | None, none_of: str | None) -> Elements:
    """The elements of the options.

    Parameters
    ----------
    any_of, all_of, none_of
        Symbols with commas between.

    Raises
    ------
    ConfigurationError
        If one is no element.
    """
    from train.discovery.property_search import Elements

    return Elements(*(tuple(s.strip() for s in (o or "").split(",") if s.strip()) for o in (any_of, all_of, none_of)))


def columns_of(names: list[str]) -> dict[str, str]:
    """Headings of the columns of properties, with their units.

    Parameters
    ----------
    names
        Of :data:`registry.properties.PROPERTIES`.
    """
    from registry.properties import PROPERTIES

    return {name: f"{PROPERTIES[name].label} [{PROPERTIES[name].unit}]" for name in names}


def cell(value: Value) -> str:
    """A value as a table shows it: ``212 known``, or ``212 (195 to 230) predicted``."""
    if value.known:
        return f"{value.value:.4g} known"
    span = "" if value.lower is None or value.upper is None else f" ({value.lower:.3g} to {value.upper:.3g})"
    return f"{value.value:.4g}{span} predicted"


def value_json(value: Value, name: str) -> Mapping[str, Any]:
    """A value as JSON has it: with its unit, and where it is from."""
    from registry.properties import PROPERTIES

    return {
        "value": value.value,
        "unit": PROPERTIES[name].unit,
        "from": "known" if value.known else "predicted",
        "lower": value.lower,
        "upper": value.upper,
        "model": value.model,
    }
