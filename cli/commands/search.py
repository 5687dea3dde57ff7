"""``ecdreg search``: crystals of the registry that meet constraints on properties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.connections import open_registry
from cli.options.arguments import JsonOption, WhereOption
from cli.options.constraints import (
    AllElementsOption,
    AnyElementsOption,
    ConstraintOption,
    ObjectiveOption,
    WithoutOption,
    columns_of,
    value_cell,
)

if TYPE_CHECKING:
    from ecdreg.search.property_search import FoundCrystal

__all__ = ["search"]

_COLUMNS = {name: name for name in ("rank", "id", "formula", "prototype", "met", "front")}


def search(
    constraints: ConstraintOption = None,
    objectives: ObjectiveOption = None,
    elements_any: AnyElementsOption = "",
    elements_all: AllElementsOption = "",
    without: WithoutOption = "",
    where: WhereOption = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Number of crystals.")] = 10,
    known_only: Annotated[bool, typer.Option("--known-only", help="Use known values alone, no predictions.")] = False,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="Split of the cross-validation that chooses models. [default]"),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values instead of a table.")] = False,
    json: JsonOption = False,
) -> None:
    """Find crystals that meet constraints on properties: inverse design.

    A range may be open at one end (k_vrh=250:). Known values count first; where a value is unknown, or suspect, the
    model that is best in cross-validation predicts it, with its 90 % interval, and the cell is marked. "chance" is the
    probability that all constraints are met. Crystals that meet the constraints come first, the Pareto front (1) over
    the objectives before the next ones; if fewer than -k do, the nearest misses follow, marked.

    \b
    Examples:
      ecdreg search --constraint k_vrh=250:300 --constraint efermi=5:7
      ecdreg search --constraint k_vrh=250: --objective formation_energy_per_atom=min --elements-any Ti,Zr
      ecdreg search --objective k_vrh=max --objective formation_energy_per_atom=min --without Os,Ir --csv
      ecdreg search --constraint efermi=5:7 --where "space_group_number = 225" --known-only --json
    """
    if json and csv:
        raise typer.BadParameter("give --json or --csv, not both")
    registry = open_registry()
    with output.progress() as progress:
        found = registry.search(
            constraints or (),
            objectives or (),
            elements_any=elements_any,
            elements_all=elements_all,
            without=without,
            where=where,
            k=k,
            known_only=known_only,
            split=split,
            progress=progress,
        )
    if json:
        output.json(found.to_dicts())
    elif csv:
        output.csv([one.to_flat() for one in found])
    elif found:
        chance = {"chance": "chance"} if constraints else {}
        output.table(
            [_row(one) for one in found], _COLUMNS | chance | columns_of(found.properties), formats={"chance": ".2f"}
        )
    output.remarks(found)


def _row(one: FoundCrystal) -> dict[str, Any]:
    return {
        "rank": one.rank,
        "id": one.id,
        "formula": one.formula,
        "prototype": one.prototype,
        "met": ("yes" if one.meets else "no") + (", out of domain" if one.out_of_domain else ""),
        "front": one.front,
        "chance": one.chance,
        **{name: value_cell(value) for name, value in one.values.items()},
    }
