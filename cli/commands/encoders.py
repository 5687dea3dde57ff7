"""``ecdreg encoders``: list encoders, choose the default, add one that a fixed rule makes."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import output
from cli.connections import open_registry
from cli.groups import command_group
from cli.options.arguments import JsonOption

__all__ = ["group"]

group = command_group("List the encoders that make vectors, and choose the one that searches use.")


@group.command("list")
def list_encoders(json: JsonOption = False) -> None:
    """List the encoders: frozen backbones and trained towers, with the number of their vectors.

    \b
    Examples:
      ecdreg encoders list
      ecdreg encoders list --json
    """
    found = open_registry().encoders()
    rows = found.to_dicts()
    if json:
        output.json(rows)
    elif rows:
        output.table([{**row, "aliases": ", ".join(row["aliases"])} for row in rows])
    output.remarks(found)


@group.command("default")
def default(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name or alias of an encoder.", show_default=False)],
    json: JsonOption = False,
) -> None:
    """Choose the encoder that searches use when none is named.

    \b
    Examples:
      ecdreg encoders default efficientnet_lite0:metric
    """
    chosen = open_registry().set_default_encoder(name)
    row = {"alias": "default", "encoder": chosen.encoder, "modality": chosen.modality, "dim": chosen.dim}
    output.rows([row], json=json)


@group.command("add")
def add(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="fingerprint, pettifor, magpie, elements or density-statistics.", show_default=False
        ),
    ],
    json: JsonOption = False,
) -> None:
    """Compute a vector of every crystal by a fixed rule, for searches; no label is used.

    `fingerprint` joins statistics of the charge density and of the composition, and the composition on Pettifor's
    chemical scale, where elements that replace each other are neighbours; `ecdreg train stacked` and `density` make it
    too, and searches use it by default. `pettifor` is that scale alone, for crystals without a density.
    `ecdreg evaluate search` measures their quality. Crystals that have a vector keep it; new ones get theirs.

    \b
    Examples:
      ecdreg encoders add fingerprint
      ecdreg encoders add pettifor --json
    """
    registry = open_registry()
    with output.progress() as progress:
        added = registry.add_encoder(name, progress=progress)
    output.rows([added.to_dict()], json=json, columns=["encoder", "modality", "dim", "vectors"])
