"""Page of the explanation of a prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ecdreg.explained_prediction import ExplainedPrediction
from ecdreg.report.explanation import explanation_page
from train.analysis.explanation import Explanation, Parts, Pixels


def explanation(**changes: Any) -> Explanation:
    """A stack's view of rock salt, made up."""
    rng = np.random.default_rng(0)
    image = rng.uniform(0, 1, (2, 16, 16)).astype(np.float32)
    shares = rng.normal(size=image.shape) / 256
    fields: dict[str, Any] = {
        "model": "stacked:k_vrh@1",
        "target": "k_vrh",
        "unit": "GPa",
        "source_id": "sample:mp-1",
        "formula": "Na<Cl>",
        "subset": "holdout",
        "fold": None,
        "predicted": 30.0,
        "known": 25.0,
        "modalities": Parts(("image", "text"), np.array([-50.0, -20.0]), np.zeros(2), 100.0, 30.0),
        "pixels": Pixels(
            image, shares, ("total", "deformation"), "integrated gradients", 80.0, 30.0, 64, 0.2, (12.0, 12.0)
        ),
        "text": "NaCl: all <b>",
        "words": Parts(("NaCl:", "all", "<b>"), np.array([3.0, -1.0, 0.5]), np.array([0.1, 0.1, 0.1]), 27.5, 30.0),
        "features": {"composition": Parts(("MeltingT",), np.array([4.0]), np.array([0.3]), 26.0, 30.0)},
    }
    return Explanation(**(fields | changes))


def page_of(one: Explanation) -> str:
    return explanation_page([ExplainedPrediction(one, None, None, None, None)])


def test_page_has_every_part_and_escapes_texts() -> None:
    page = explanation_page([ExplainedPrediction(explanation(), 12.0, 44.0, 0.9, False)])
    assert page.startswith("<!doctype html>")
    for part in ("modalities", "pixels", "words", "features: composition"):
        assert f"<h2>Shares of the {part}</h2>" in page
    assert '<div class="card"><b>12 to 44 GPa</b><span>90 % interval</span></div>' in page
    assert "Na&lt;Cl&gt;" in page
    assert "<b>" not in page.replace("<b>30.0 GPa</b>", "").replace("<b>12 to 44 GPa</b>", "").replace(
        "<b>25.0 GPa</b>", ""
    )
    assert page.count("<svg") == 3
    assert "src=" not in page  # nothing is requested
    assert "http" not in page.replace("http://www.w3.org", "")


def test_suspect_true_value_is_marked() -> None:
    assert "true value, but suspect" not in page_of(explanation())
    page = page_of(explanation(known=-3.1, suspect=True))
    assert "true value, but suspect" in page
    assert "true value, suspect" in page  # in the figure, too


def test_single_tower_has_no_waterfall() -> None:
    one = explanation(
        modalities=Parts(("text",), np.array([-70.0]), np.zeros(1), 100.0, 30.0), pixels=None, features={}, fold=2,
        subset="validation", known=None,
    )  # fmt: skip
    html = page_of(one)
    assert "<svg" not in html
    assert "model of fold 2" in html
    assert "90 % interval" not in html


def test_page_without_explanations_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to explain"):
        explanation_page([])
