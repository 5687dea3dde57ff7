"""``ecdreg predict``: what a trained model says of crystals of the registry, or of files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.options.common import (
    DensityOption,
    JsonOption,
    LevelOfTheoryOption,
    ReferenceOption,
    StructureOption,
    open_engine,
)
from cli.options.common import settings as environment
from ecdreg.files import read_crystal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from registry.model_store import ResolvedModel
    from train.prediction.predictor import PredictionResult
    from train.prediction.stored import CrystalPrediction

__all__ = ["predict"]

FORMATS = {"predicted": ".4g", "spread": ".2g"}


def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME[:TARGET][@ALIAS or @VERSION].")],
    idents: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Crystals of the registry: id, or source:id.")
    ] = None,
    structure: StructureOption = None,
    density: DensityOption = None,
    reference: ReferenceOption = None,
    level_of_theory: LevelOfTheoryOption = None,
    interval: Annotated[
        float, typer.Option("--interval", metavar="LEVEL", help="Share of true values that intervals hold.")
    ] = 0.9,
    json: JsonOption = False,
) -> None:
    """Predict with a trained model, for crystals of the registry or for files.

    A file goes through the same slices and texts as an ingest. The interval comes from the errors that the model
    made on crystals that it had not seen (CV+; docs/concepts/uncertainty.md), and is wider for an unusual crystal;
    "out of domain" marks one so unlike that its interval may be too narrow. The spread is the standard deviation over
    the models of the folds, no error bar. For a crystal of the model's split, what the model said without having seen
    it is repeated: "validation" by the fold that left it out, "holdout" by the refit. "train" marks a material
    that the model was fitted to under another id or revision. A known value outside its plausible range is marked
    "suspect": no model was fitted to it, and it says nothing of the prediction.

    \b
    Examples:
      ecdreg predict stacked mp-1022 mp-361
      ecdreg predict stacked:k_vrh@best mp-1022 --interval 0.8 --json
      ecdreg predict text --structure NaCl.cif
      ecdreg predict stacked --density CHGCAR --reference CHGCAR.reference --level-of-theory GGA
    """
    files = structure is not None or density is not None
    if files == bool(idents):
        raise typer.BadParameter("give ids of the registry, or --structure and --density files, and not both")
    if not files and (reference is not None or level_of_theory is not None):
        raise typer.BadParameter("--reference and --level-of-theory belong to --density")
    if not 0 < interval < 1:
        raise typer.BadParameter(f"--interval is {interval:g}; give a number between 0 and 1, for instance 0.9")
    engine = open_engine()
    try:
        from sqlalchemy.orm import Session

        from registry.model_store import resolve_model

        with Session(engine) as session:
            models = resolve_model(session, model)
        if files:
            rows = _files(engine, models, structure, density, reference, level_of_theory, interval)
        else:
            rows = _registered(engine, models, idents or [], interval)
    finally:
        engine.dispose()
    if json:
        output.json(rows)
        return
    columns = {
        "model": "model",
        "id": "id",
        "formula": "formula",
        "predicted": "predicted",
        "interval": f"{100 * interval:g} % interval",
        "spread": "spread",
        "known": "known",
        "unit": "unit",
        "subset": "subset",
    }
    if any(row["out_of_domain"] for row in rows):
        columns["domain"] = "domain"
    output.table([row | _words(row) for row in rows], columns, formats=FORMATS)
    for told in dict.fromkeys(_doubt(row) for row in rows if row["suspect"]):
        output.note(told)


def _words(row: dict[str, Any]) -> dict[str, str]:
    interval = "" if row["lower"] is None else f"{row['lower']:.4g} to {row['upper']:.4g}"
    words = {"interval": interval, "domain": "out of domain" if row["out_of_domain"] else ""}
    return words | ({"known": f"{row['known']:.4g} (suspect)"} if row["suspect"] else {})


def _doubt(row: dict[str, Any]) -> str:
    from registry.properties import suspect_reason

    # The mark is the registry's; a range that was changed since gives no reason of its own.
    why = suspect_reason(row["target"], row["known"]) or f"{row['target']} = {row['known']:.6g} is marked suspect"
    return f"{row['id']}: {why}"


def _registered(
    engine: Engine, models: Sequence[ResolvedModel], idents: Sequence[str], confidence: float
) -> list[dict[str, Any]]:
    from sqlalchemy.orm import Session

    from registry.crystals import resolve

    with Session(engine) as session:
        crystals = [resolve(session, ident) for ident in idents]
    from train.prediction.stored import predict_crystals  # torch: not before it is clear that there is work

    rows = []
    with output.progress() as progress:
        for model in models:
            ids = [crystal.revision_id for crystal in crystals]
            said = predict_crystals(engine, environment(), model, ids, confidence=confidence, progress=progress)
            rows += [
                _row(
                    model,
                    f"{crystal.source}:{crystal.source_id}",
                    crystal.formula,
                    prediction,
                    known=prediction.known,
                    suspect=prediction.suspect,
                    subset=prediction.subset,
                )
                for crystal, prediction in zip(crystals, said, strict=True)
            ]
    return rows


def _files(
    engine: Engine,
    models: Sequence[ResolvedModel],
    structure: Path | None,
    density: Path | None,
    reference: Path | None,
    level_of_theory: str | None,
    confidence: float,
) -> list[dict[str, Any]]:
    from sqlalchemy.orm import Session

    from registry.errors import IncompatibleInputError
    from train.prediction.predictor import Predictor
    from train.prediction.stored import was_fitted_to

    with Session(engine) as session:
        predictors = [Predictor.load(session, environment(), model) for model in models]
    for predictor in predictors:
        if "image" in predictor.config.towers and density is None:
            raise IncompatibleInputError(
                f"{predictor.model.name} reads slices of the charge density; give --density FILE (CHGCAR, cube or"
                " HDF5), or use a model that reads none"
            )
    configs = [predictor.config for predictor in predictors]
    crystal = read_crystal(
        structure,
        density,
        reference=reference,
        level_of_theory=level_of_theory,
        recipes=tuple(sorted({config.recipe for config in configs if "image" in config.towers})),
        texts=any("text" in config.towers for config in configs),
    )
    rows = []
    for predictor in predictors:
        predictor.calibrate(engine)
        (result,) = predictor.predict([crystal], confidence=confidence)
        with Session(engine) as session:
            subset = "train" if was_fitted_to(session, predictor.model.experiment, crystal) else "none"
        rows.append(_row(predictor.model, crystal.source_id, crystal.formula, result, known=None, subset=subset))
    return rows


def _row(
    model: ResolvedModel,
    ident: str,
    formula: str,
    said: CrystalPrediction | PredictionResult,
    *,
    known: float | None,
    subset: str,
    suspect: bool = False,
) -> dict[str, Any]:
    from registry.properties import property_named

    return {
        "model": model.name,
        "target": model.experiment.target,
        "unit": property_named(model.experiment.target).unit,
        "id": ident,
        "formula": formula,
        "predicted": said.value,
        "lower": said.lower,
        "upper": said.upper,
        "level": said.confidence,
        "out_of_domain": said.out_of_domain,
        "spread": said.spread,
        "known": known,
        "suspect": suspect,
        "subset": subset,
    }
