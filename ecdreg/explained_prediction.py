"""An explained prediction, which :func:`ecdreg.explanation.explain` returns and reports show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.analysis.explanation import Explanation
    from train.analysis.explanation import Parts as Parts

__all__ = ["ExplainedPrediction"]


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


def _shares(parts: Parts) -> dict[str, Any]:
    shares = [
        {"part": name, "share": float(value), "standard_error": float(error)}
        for name, value, error in zip(parts.names, parts.values, parts.error, strict=True)
    ]
    return {"empty": parts.empty, "full": parts.full, "shares": shares}
