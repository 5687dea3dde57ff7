"""Prediction with trained models, for crystals of the registry or for files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from ecdreg.files import CrystalFiles, read_crystal, warnings_on_error
from ecdreg.results import Results
from registry.crystals import resolve
from registry.errors import ConfigurationError, IncompatibleInputError
from registry.model_store import ResolvedModel, resolve_model
from registry.properties import property_named, suspect_reason
from train.prediction.uncertainty import CONFIDENCE

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection
    from registry.jobs.progress import Progress
    from train.prediction.predictor import PredictionResult
    from train.prediction.stored import CrystalPrediction

__all__ = ["ModelPrediction", "check_confidence", "predict"]


@dataclass(frozen=True)
class ModelPrediction:
    """Prediction of one target of one crystal by one model; all values in ``unit``."""

    model: str
    """``name:target@version``"""
    target: str
    unit: str
    id: str
    """``source:id`` of a crystal of the registry, or the name of the file."""
    formula: str
    predicted: float
    lower: float | None
    """Lower end of the prediction interval; None where the model has no intervals."""
    upper: float | None
    """Upper end of the prediction interval."""
    confidence: float | None
    """Confidence of the interval: the share of true values that such intervals are made to contain."""
    out_of_domain: bool | None
    """Whether the crystal is so unlike the training data that its interval may be too narrow."""
    spread: float | None
    """Standard deviation over the models of the folds; it is not an error bar."""
    known: float | None
    """Known value of the registry; it may be suspect."""
    suspect: bool
    """Whether the known value is outside its plausible range."""
    subset: str
    """validation, holdout: predicted by a model that was not fitted to the crystal; train: the model was fitted to
    this material; none: outside the split of the model."""

    def to_dict(self) -> dict[str, Any]:
        """The row of the JSON output."""
        return asdict(self)


def predict(
    registry: RegistryConnection,
    model: str,
    ids: Sequence[str] = (),
    *,
    structure: str | Path | None = None,
    density: str | Path | None = None,
    reference: str | Path | None = None,
    level_of_theory: str | None = None,
    confidence: float = CONFIDENCE,
    progress: Progress | None = None,
) -> Results[ModelPrediction]:
    """Predict with a trained model, for crystals of the registry or for one crystal in files.

    A crystal of the model's split gets the prediction that was made without it: of the fold that left it out, or of
    the refit for the holdout. Predictions of other crystals of the registry are stored; those of files are not. Files
    pass through the same slices and texts as an ingest.

    Parameters
    ----------
    registry
        An open registry.
    model
        ``name[:target][@alias or @version]``; without a target, one prediction for each target.
    ids
        Ids of crystals of the registry, or ``source:id``; instead of files.
    structure
        Crystal structure: CIF, POSCAR, ``.vasp`` or pymatgen JSON.
    density
        Charge density: CHGCAR, cube or HDF5, also ``.gz``.
    reference
        Density of the superposed free atoms on the same grid, as CHGCAR.
    level_of_theory
        Level of theory of the density, where its file does not state it.
    confidence
        Confidence of the prediction intervals, between 0 and 1.
    progress
        Receives the progress of features that are computed.

    Returns
    -------
    Results of ModelPrediction
        By model, then by crystal. Notes: why known values are suspect. Warnings: parts of the files that could not
        be used.

    Raises
    ------
    ConfigurationError
        If ids and files are both given or both missing, an argument belongs to a density that is missing, or the
        confidence is not between 0 and 1.
    NotFoundError, AmbiguousIdError
        If there is no such model or crystal, or several crystals have an id.
    InputError
        If a file cannot be read.
    IncompatibleInputError
        If a crystal lacks what the model reads.
    ArtifactError
        If weights are missing or do not match their checksum.
    """
    files = CrystalFiles.of(structure, density, reference, level_of_theory)
    if bool(files) == bool(ids):
        raise ConfigurationError("give ids of the registry, or a structure and a density as files, and not both")
    files.check()
    check_confidence(confidence)
    with Session(registry.engine) as session:
        models = resolve_model(session, model)
        session.expunge_all()  # used after the session is closed
    if files:
        return _of_files(registry, models, files, confidence)
    return _of_crystals(registry, models, [ids] if isinstance(ids, str) else ids, confidence, progress)


def check_confidence(confidence: float) -> None:
    """Refuse a confidence that is not between 0 and 1.

    Raises
    ------
    ConfigurationError
        If it is not.
    """
    if not 0 < confidence < 1:
        raise ConfigurationError(f"the confidence is {confidence:g}; give a number between 0 and 1, for instance 0.9")


def _of_crystals(
    registry: RegistryConnection,
    models: Sequence[ResolvedModel],
    ids: Sequence[str],
    confidence: float,
    progress: Progress | None,
) -> Results[ModelPrediction]:
    with Session(registry.engine) as session:
        crystals = [resolve(session, one) for one in ids]
        session.expunge_all()
    from train.prediction.stored import predict_crystals  # imports torch: only once it is clear that there is work

    revision_ids = [crystal.revision_id for crystal in crystals]
    rows = []
    for model in models:
        predictions = predict_crystals(
            registry.engine, registry.settings, model, revision_ids, confidence=confidence, progress=progress
        )
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
            for crystal, prediction in zip(crystals, predictions, strict=True)
        ]
    return Results(tuple(rows), tuple(dict.fromkeys(_doubt(row) for row in rows if row.suspect)))


def _of_files(
    registry: RegistryConnection, models: Sequence[ResolvedModel], files: CrystalFiles, confidence: float
) -> Results[ModelPrediction]:
    from train.prediction.predictor import Predictor
    from train.prediction.stored import was_fitted_to

    with Session(registry.engine) as session:
        predictors = [Predictor.load(session, registry.settings, model) for model in models]
    for predictor in predictors:
        if "image" in predictor.config.modalities and files.density is None:
            raise IncompatibleInputError(
                f"{predictor.model.name} reads slices of the charge density; give a density file (CHGCAR, cube or"
                " HDF5), or use a model that reads none"
            )
    configs = [predictor.config for predictor in predictors]
    crystal, problems = read_crystal(
        files,
        recipes=tuple(sorted({config.recipe_name for config in configs if config.recipe_name is not None})),
        texts=any(config.text_level_name is not None for config in configs),
    )
    rows = []
    with warnings_on_error(problems):
        for predictor in predictors:
            predictor.calibrate(registry.engine)
            (result,) = predictor.predict([crystal], confidence=confidence)
            with Session(registry.engine) as session:
                subset = "train" if was_fitted_to(session, predictor.model.experiment, crystal) else "none"
            rows.append(_row(predictor.model, crystal.source_id, crystal.formula, result, known=None, subset=subset))
    return Results(tuple(rows), warnings=problems)


def _row(
    model: ResolvedModel,
    crystal: str,
    formula: str,
    prediction: CrystalPrediction | PredictionResult,
    *,
    known: float | None,
    subset: str,
    suspect: bool = False,
) -> ModelPrediction:
    target = property_named(model.experiment.target)
    return ModelPrediction(
        model=model.name,
        target=target.name,
        unit=target.unit,
        id=crystal,
        formula=formula,
        predicted=prediction.value,
        lower=prediction.lower,
        upper=prediction.upper,
        confidence=prediction.confidence,
        out_of_domain=prediction.out_of_domain,
        spread=prediction.spread,
        known=known,
        suspect=suspect,
        subset=subset,
    )


def _doubt(row: ModelPrediction) -> str:
    # A value may be inside a range that was changed later; then only the stored mark remains.
    reason = None if row.known is None else suspect_reason(row.target, row.known)
    return f"{row.id}: {reason or f'{row.target} = {row.known:.6g} is marked suspect'}"
