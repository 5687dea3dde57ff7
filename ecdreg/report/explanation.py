"""Explanation of predictions as one self-contained HTML page: shares of modalities, pixels, words and features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ecdreg.figures.explanation import (
    MODALITIES,
    SMOOTHING,
    TOP,
    features_figure,
    modalities_figure,
    pixels_figure,
)
from ecdreg.figures.files import inline_svg
from ecdreg.output.files import write_output
from ecdreg.output.rendering import number, render

if TYPE_CHECKING:
    from markupsafe import Markup

    from ecdreg.explained_prediction import ExplainedPrediction
    from train.analysis.explanation import Explanation, Parts

__all__ = ["ExplanationView", "explanation_page", "explanation_views", "write_explanations"]


def explanation_page(explanations: Sequence[ExplainedPrediction]) -> str:
    """Render explanations as an HTML document that requests nothing.

    Parameters
    ----------
    explanations
        One item for each target, as :func:`ecdreg.explanation.explain` returns them.

    Raises
    ------
    ValueError
        If there are no explanations.
    """
    if not explanations:
        raise ValueError("nothing to explain")
    return render("report/explanation.html.j2", explanations=explanation_views(explanations))


def write_explanations(explanations: Sequence[ExplainedPrediction], path: Path) -> Path:
    """Write explanations to an HTML file.

    Parameters
    ----------
    explanations
        As :func:`ecdreg.explanation.explain` returns them; at least one.
    path
        The file.

    Returns
    -------
    Path
        The file that was written.

    Raises
    ------
    ConfigurationError
        If the file cannot be written.
    """
    return write_output(path, explanation_page(explanations))


@dataclass(frozen=True)
class ExplanationView:
    """Values of the template ``explanation_section.html.j2``."""

    content: Explanation
    cards: list[tuple[str, str]]
    """Main numbers as pairs of value and label."""
    names: list[str]
    """Names of the modalities."""
    modalities: Markup | None
    """None for a model of a single modality."""
    modality_rows: list[tuple[str, float, float]]
    """Name, share, and part of the sum of all absolute shares, by modality."""
    pixels: Markup | None
    gap: float
    """Part of the difference of the predictions that the shares of the pixels miss."""
    words: list[WordView]
    words_error: float
    """Largest standard error of the share of a word, in the unit of the target."""
    features: list[FeatureView]
    smoothing: int = SMOOTHING


@dataclass(frozen=True)
class WordView:
    """A word with its share."""

    name: str
    value: float
    opacity: float
    """Of its background, in proportion to the share."""


@dataclass(frozen=True)
class FeatureView:
    """Shares of groups of features of one modality."""

    name: str
    parts: Parts
    figure: Markup
    n_drawn: int


def explanation_views(explanations: Sequence[ExplainedPrediction]) -> list[ExplanationView]:
    """Prepare explanations for the template ``explanation_section.html.j2``.

    Parameters
    ----------
    explanations
        As :func:`ecdreg.explanation.explain` returns them.
    """
    return [_view(one) for one in explanations]


def _view(explained: ExplainedPrediction) -> ExplanationView:
    content = explained.explanation
    parts, pixels, words = content.modalities, content.pixels, content.words
    names = [MODALITIES.get(name, name) for name in parts.names]
    several = len(names) > 1
    total = float(np.abs(parts.values).sum()) or 1.0
    return ExplanationView(
        content=content,
        cards=_cards(explained),
        names=names,
        modalities=inline_svg(modalities_figure(content), f"{content.target}-modalities") if several else None,
        modality_rows=[
            (name, float(value), abs(float(value)) / total) for name, value in zip(names, parts.values, strict=True)
        ],
        pixels=None if pixels is None else inline_svg(pixels_figure(content, pixels), f"{content.target}-pixels"),
        gap=0.0 if pixels is None else abs(pixels.gap) / max(abs(pixels.full - pixels.empty), 1e-12),
        words=[] if words is None else _words(words),
        words_error=0.0 if words is None else float(np.nanmax(words.error)),
        features=[_features(content, modality, found) for modality, found in content.features.items()],
    )


def _cards(explained: ExplainedPrediction) -> list[tuple[str, str]]:
    content = explained.explanation
    cards = [(f"{number(content.predicted)} {content.unit}", f"predicted {content.target}")]
    if explained.interval is not None and explained.confidence is not None:
        cards.append((explained.interval, f"{100 * explained.confidence:g} % interval"))
    if content.known is not None:
        label = "true value, but suspect" if content.suspect else "true value"
        cards.append((f"{number(content.known)} {content.unit}", label))
    return cards


def _words(words: Parts) -> list[WordView]:
    largest = float(np.abs(words.values).max()) or 1.0
    return [
        WordView(name, float(value), 0.65 * abs(float(value)) / largest)
        for name, value in zip(words.names, words.values, strict=True)
    ]


def _features(content: Explanation, modality: str, parts: Parts) -> FeatureView:
    figure = inline_svg(features_figure(content, parts), f"{content.target}-{modality}")
    return FeatureView(MODALITIES.get(modality, modality), parts, figure, min(TOP, len(parts.names)))
