"""Explanation of predictions: the shares of modalities, pixels, words and other features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from ecdreg.output.files import check_output_path
from ecdreg.results import Results
from registry.crystals import resolve
from registry.model_store import resolve_model

if TYPE_CHECKING:
    from ecdreg.registry import Registry
    from registry.jobs.progress import Progress
    from train.analysis.explanation import Explanation
    from train.analysis.explanation import Parts as Parts

__all__ = ["ExplainedPrediction", "explain"]


@dataclass(frozen=True)
class ExplainedPrediction:
    """Prediction of one model for one crystal, with its explanation and its interval."""

    explanation: Explanation
    lower: float | None
    """Lower end of the prediction interval, in the unit of the target; None where the model has no intervals."""
    upper: float | None
    """Upper end of the prediction interval."""
    confidence: float | None
    """Confidence of the interval."""
    out_of_domain: bool | None
    """Whether the crystal is so unlike the training data that its interval may be too narrow."""

    @property
    def interval(self) -> str | None:
        """The interval in words, as ``195 to 230 GPa, out of domain``; None where there is none."""
        if self.lower is None or self.upper is None:
            return None
        words = f"{self.lower:.4g} to {self.upper:.4g} {self.explanation.unit}"
        return f"{words}, out of domain" if self.out_of_domain else words

    def to_dict(self) -> dict[str, Any]:
        """The row of the JSON output: all shares, without the maps of the pixels."""
        one = self.explanation
        pixels = one.pixels
        return {
            "model": one.model,
            "target": one.target,
            "unit": one.unit,
            "id": one.source_id,
            "formula": one.formula,
            "subset": one.subset,
            "fold": one.fold,
            "predicted": one.predicted,
            "interval": self.interval,
            "known": one.known,
            "suspect": one.suspect,
            "modalities": _shares(one.modalities),
            "pixels": None
            if pixels is None
            else {
                "method": pixels.method,
                "steps": pixels.steps,
                "empty": pixels.empty,
                "full": pixels.full,
                "gap": pixels.gap,
                "channels": pixels.by_channel,
            },
            "text": one.text,
            "words": None if one.words is None else _shares(one.words),
            "features": {name: _shares(parts) for name, parts in one.features.items()},
        }


def explain(
    registry: Registry,
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


def _shares(parts: Parts) -> dict[str, Any]:
    shares = [
        {"part": name, "share": float(value), "standard_error": float(error)}
        for name, value, error in zip(parts.names, parts.values, parts.error, strict=True)
    ]
    return {"empty": parts.empty, "full": parts.full, "shares": shares}
