"""``ecdreg properties``: the properties of crystals, and those that users add."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.connections import open_registry
from cli.groups import command_group
from cli.options.arguments import JsonOption

if TYPE_CHECKING:
    from ecdreg.properties import PropertySummary
    from ecdreg.results import Results

__all__ = ["group"]

group = command_group("List the properties of crystals, and add or remove your own.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the property.", show_default=False)]


@group.command("add")
def add(
    name: NameArgument,
    unit: Annotated[
        str, typer.Option("--unit", metavar="UNIT", help="Unit of its values; 1 for a number without a unit.")
    ],
    range_: Annotated[
        str,
        typer.Option("--range", metavar="LOW:HIGH", help="Plausible values; others are kept and marked suspect."),
    ],
    label: Annotated[
        str | None, typer.Option("--label", metavar="TEXT", help="Words for axes and tables, without the unit.")
    ] = None,
    description: Annotated[
        str | None, typer.Option("--description", metavar="TEXT", help="What it is, in one line.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why values outside the range are suspect.")
    ] = None,
    lower_bound: Annotated[
        float | None,
        typer.Option("--lower-bound", metavar="NUMBER", help="Physical lower bound, where prediction intervals end."),
    ] = None,
    as_target: Annotated[
        bool, typer.Option("--as-target", help="Report it for each neighbour of `ecdreg similar` too.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Add a property: a column of v_materials and of dataset folders, and a target to train on.

    The name has lower-case letters, digits and underscores. Splits exclude values outside the range by default. Views
    of your own on v_materials must be dropped first, because v_materials is created again with the new column.

    \b
    Examples:
      ecdreg properties add hardness_vickers --unit GPa --range 0:150
      ecdreg properties add poisson_ratio --unit 1 --range -1:0.5 --label "Poisson's ratio"
      ecdreg ingest --source ./mydata/ && ecdreg train composition --target hardness_vickers
    """
    from ecdreg.properties import parse_range

    ends = parse_range(range_)
    added = open_registry().add_property(
        name,
        unit=unit,
        plausible_range=ends,
        label=label,
        description=description,
        range_reason=reason,
        lower_bound=lower_bound,
        as_target=as_target,
    )
    _print(added, json=json)


@group.command("list")
def list_(json: JsonOption = False) -> None:
    """List all properties with unit, plausible range and number of values.

    \b
    Examples:
      ecdreg properties list
      ecdreg properties list --json
    """
    _print(open_registry().properties(), json=json)


@group.command("remove")
def remove(name: NameArgument, json: JsonOption = False) -> None:
    """Remove a property that you added; one that has values or splits stays.

    \b
    Examples:
      ecdreg properties remove hardness_vickers
    """
    removed = open_registry().remove_property(name)
    if json:
        output.json(asdict(removed))
    else:
        output.line(f"removed the property {removed.name} [{removed.unit}]")


def _print(found: Results[PropertySummary], *, json: bool) -> None:
    if json:
        output.json(found.to_dicts())
    else:
        output.table([_row(one) for one in found])
    for note in found.notes:
        output.note(note)


def _row(one: PropertySummary) -> dict[str, Any]:
    return {
        "property": one.name,
        "unit": one.unit,
        "label": one.label,
        "range": f"{one.plausible_min:g}:{one.plausible_max:g}",
        "built in": one.builtin,
        "values": one.values,
        "splits": one.splits,
    }
