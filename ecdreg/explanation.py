"""Explanation of predictions: the shares of modalities, pixels, words and other features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from ecdreg.explained_prediction import ExplainedPrediction
from ecdreg.output.files import check_output_path
from ecdreg.results import Results
from registry.crystals import resolve
from registry.model_store import resolve_model

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection
    from registry.jobs.progress import Progress

__all__ = ["explain"]


def explain(
    registry: RegistryConnection,
    model: str,
    ids: str | Sequence[str],
    *,
    page: str | Path | None = None,
    progress: Progress | None = None,
) -> Results[ExplainedPrediction]:
    """Explain predictions for crystals of the registry.

    Shares of modalities, words and features are Shapley values, those of pixels integrated gradients
    (``docs/concepts/attribution.md``). A crystal of the model's cross-validation is explained with the model of the
    fold that left it out.

    Parameters
    ----------
    registry
        An open registry; features and predictions that are missing are computed, and stored.
    model
        ``name[:target][@alias or @version]``; without a target, one explanation for each target.
    ids
        Id of a crystal, or ``source:id``; or several.
    page
        HTML file to write, with maps of the pixels.
    progress
        Receives each part.

    Returns
    -------
    Results of ExplainedPrediction
        By crystal, then by model.

    Raises
    ------
    ConfigurationError
        If the page cannot be written; its path is checked before the work.
    NotFoundError, AmbiguousIdError
        If there is no such model or crystal, or several crystals have an id.
    IncompatibleInputError
        If a crystal lacks what the model reads, or the model has no inputs.
    ArtifactError
        If weights are missing or do not match their checksum.
    """
    if page is not None:
        check_output_path(Path(page))
    with Session(registry.engine) as session:
        models = resolve_model(session, model)
        revision_ids = [resolve(session, one).revision_id for one in ([ids] if isinstance(ids, str) else ids)]
        session.expunge_all()  # used after the session is closed
    from train.analysis.explanation import explain as explain_prediction
    from train.prediction.stored import predict_crystals

    rows = []
    for revision_id in revision_ids:
        for one in models:
            (prediction,) = predict_crystals(registry.engine, registry.settings, one, [revision_id], progress=progress)
            explanation = explain_prediction(registry.engine, registry.settings, one, revision_id, progress=progress)
            rows.append(
                ExplainedPrediction(
                    explanation, prediction.lower, prediction.upper, prediction.confidence, prediction.out_of_domain
                )
            )
    if page is not None:
        from ecdreg.report.explanation import write_explanations  # imports matplotlib

        write_explanations(rows, Path(page))
    return Results(tuple(rows))
