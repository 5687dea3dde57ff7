"""``ecdreg search``: crystals that have wished properties, as the registry knows them or its models say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.options.common import JsonOption, WhereOption, open_engine
from cli.options.common import settings as environment
from cli.options.constraints import (
    AllElementsOption,
    AnyElementsOption,
    PreferOption,
    WantOption,
    WithoutOption,
    cell,
    columns_of,
    elements_of,
    value_json,
)

if TYPE_CHECKING:
    from train.discovery.property_search import Found, FoundMaterials

__all__ = ["search"]


def search(
    want: WantOption = None,
    prefer: PreferOption = None,
    elements_any: AnyElementsOption = None,
    elements_all: AllElementsOption = None,
    without: WithoutOption = None,
    where: WhereOption = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many crystals.")] = 10,
    known_only: Annotated[bool, typer.Option("--known-only", help="No predictions: known values alone.")] = False,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="NAME", help="Split whose cross-validation chooses the models. [default]"),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values instead of a table.")] = False,
    json: JsonOption = False,
) -> None:
    """Find the crystals that have wished properties: inverse design.

    A range may be open at one end (k_vrh=250:). Known values count first; where a value is not known, or suspect,
    the model that is best in cross-validation says it, with its 90 % interval, and the cell is marked. "chance" is
    the probability that all constraints are met. Those that meet the constraints come first, the Pareto front (1) over the
    objectives before the next ones; if none or few do, the nearest misses follow, marked.

    \b
    Examples:
      ecdreg search --want k_vrh=250:300 --want efermi=5:7
      ecdreg search --want k_vrh=250: --prefer formation_energy_per_atom=min --elements-any Ti,Zr
      ecdreg search --prefer k_vrh=max --prefer formation_energy_per_atom=min --without Os,Ir --csv
      ecdreg search --want efermi=5:7 --where "space_group_number = 225" --known-only --json
    """
    from registry.search.constraints import parse_constraint, parse_objective

    if json and csv:
        raise typer.BadParameter("give --json or --csv, not both")
    engine = open_engine()  # first: the properties that users added are read from the database
    constraints = [parse_constraint(one) for one in want or ()]
    objectives = [parse_objective(one) for one in prefer or ()]
    elements = elements_of(elements_any, elements_all, without)
    from train.discovery.property_search import check_constraints, find_materials

    names = check_constraints(constraints, objectives)
    with output.progress() as progress:
        answer = find_materials(
            engine,
            environment(),
            constraints=constraints,
            objectives=objectives,
            elements=elements,
            where=where,
            k=k,
            predict=not known_only,
            split=split,
            progress=progress,
        )
    if json:
        output.json([_json(rank, one) for rank, one in enumerate(answer.found, start=1)])
    elif csv:
        output.csv([_flat(rank, one, names) for rank, one in enumerate(answer.found, start=1)])
    elif answer.found:
        output.table(
            [_row(rank, one, names) for rank, one in enumerate(answer.found, start=1)],
            {"rank": "rank", "id": "id", "formula": "formula", "prototype": "prototype", "met": "met", "front": "front"}
            | ({"chance": "chance"} if constraints else {})
            | columns_of(names),
            formats={"chance": ".2f"},
        )
    _tell(answer, wished=bool(constraints))


def _tell(answer: FoundMaterials, *, wished: bool) -> None:
    from registry.properties import PROPERTIES

    if wished:
        output.note(f"{answer.n_met} of {answer.n_candidates} crystals meet every constraint")
        if 0 < answer.n_met < len(answer.found):
            output.note('those with "no" in the column met are the nearest misses')
    elif not answer.found:
        output.note(f"no crystal among {answer.n_candidates}")
    for name, one in answer.models.items():
        output.note(
            f"{name} is predicted by {one.model.name} where it is not known (RMSE {one.cv_rmse:.3g}"
            f" {PROPERTIES[name].unit} in cross-validation of {one.n_cv} crystals, split {one.split})"
        )
    for note in answer.notes:
        output.note(note)


def _row(rank: int, one: Found, names: list[str]) -> dict[str, Any]:
    return {
        "rank": rank,
        "id": f"{one.source}:{one.source_id}",
        "formula": one.formula,
        "prototype": one.prototype,
        "met": ("yes" if one.meets else "no") + (", out of domain" if one.out_of_domain else ""),
        "front": one.front,
        "chance": one.chance,
        **{name: cell(one.values[name]) for name in names},
    }


def _flat(rank: int, one: Found, names: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {**_row(rank, one, []), "met": one.meets, "out_of_domain": one.out_of_domain}
    for name in names:
        value = one.values[name]
        row |= {name: value.value, f"{name}_from": "known" if value.known else "predicted"}
        row |= {f"{name}_lower": value.lower, f"{name}_upper": value.upper}
    return row


def _json(rank: int, one: Found) -> dict[str, Any]:
    return {
        "rank": rank,
        "source": one.source,
        "source_id": one.source_id,
        "formula": one.formula,
        "prototype": one.prototype,
        "space_group_symbol": one.space_group_symbol,
        "meets": one.meets,
        "front": one.front,
        "chance": one.chance,
        "out_of_domain": one.out_of_domain,
        "values": {name: value_json(value, name) for name, value in one.values.items()},
    }
