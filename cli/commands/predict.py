"""``ecdreg predict``: predictions of a trained model for crystals of the registry or for files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.connections import open_registry
from cli.options.arguments import (
    ConfidenceOption,
    DensityOption,
    JsonOption,
    LevelOfTheoryOption,
    ReferenceOption,
    StructureOption,
)

if TYPE_CHECKING:
    from ecdreg.prediction import ModelPrediction

__all__ = ["predict"]

_FORMATS = {"predicted": ".4g", "spread": ".2g"}


def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME[:TARGET][@ALIAS or @VERSION].")],
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Crystals of the registry: id, or source:id.")
    ] = None,
    structure: StructureOption = None,
    density: DensityOption = None,
    reference: ReferenceOption = None,
    level_of_theory: LevelOfTheoryOption = None,
    confidence: ConfidenceOption = 0.9,
    json: JsonOption = False,
) -> None:
    """Predict with a trained model, for crystals of the registry or for files.

    Files pass through the same slices and texts as an ingest. The interval is computed from the errors of the model on
    crystals that it was not fitted to (CV+; docs/concepts/uncertainty.md), and is wider for a crystal unlike all of
    them; "out of domain" marks a crystal so unlike them that its interval may be too narrow. The spread is the standard
    deviation over the models of the folds; it is not an error bar. For a crystal of the model's split, the prediction
    is the stored one that was made without it: "validation" by the fold that left it out, "holdout" by the refit.
    "train" marks a material that the model was fitted to under another id or revision. A known value outside its
    plausible range is marked "suspect": no model was fitted to it, and it does not test the prediction.

    \b
    Examples:
      ecdreg predict stacked mp-1022 mp-361
      ecdreg predict stacked:k_vrh@best mp-1022 --confidence 0.8 --json
      ecdreg predict text --structure NaCl.cif
      ecdreg predict stacked --density CHGCAR --reference CHGCAR.reference --level-of-theory GGA
    """
    registry = open_registry()
    with output.progress() as progress:
        found = registry.predict(
            model,
            ids or (),
            structure=structure,
            density=density,
            reference=reference,
            level_of_theory=level_of_theory,
            confidence=confidence,
            progress=progress,
        )
    if json:
        output.json(found.to_dicts())
    else:
        columns = {
            "model": "model",
            "id": "id",
            "formula": "formula",
            "predicted": "predicted",
            "interval": f"{100 * confidence:g} % interval",
            "spread": "spread",
            "known": "known",
            "unit": "unit",
            "subset": "subset",
        }
        if any(one.out_of_domain for one in found):
            columns["domain"] = "domain"
        output.table([_row(one) for one in found], columns, formats=_FORMATS)
    output.remarks(found)


def _row(one: ModelPrediction) -> dict[str, Any]:
    return one.to_dict() | {
        "interval": "" if one.lower is None else f"{_number(one.lower)} to {_number(one.upper)}",
        "domain": "out of domain" if one.out_of_domain else "",
        "known": f"{_number(one.known)} (suspect)" if one.suspect else one.known,
    }


def _number(value: float | None) -> str:
    return "" if value is None else output.number(value, ".4g")
