"""Published results, for comparison with reproduced ones.

Source: Massa, Kaszuba, Papanikolaou, Sankowski, *Transfer Learning in Materials Informatics*, arXiv 2401.09301v3,
figure 2 and its table for CLIP. For CLIP, the first fold is also listed separately: one network was trained through all
five folds, so that the other four were scored by a network that had been trained on their rows.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from statistics import fmean

__all__ = ["SUBSETS", "Published", "published", "published_for"]

SUBSETS = ("train", "val", "test")
"""Subsets of the published tables: training rows of the folds, validation rows of the folds, holdout."""


@dataclass(frozen=True)
class Published:
    """One row of the published results."""

    target: str
    text_level: str
    stage: str
    """``image``, ``text``, ``image+text``, ``clip``, or ``clip-fold-1``, the fold without leakage."""
    r2: dict[str, float]
    """R2 by subset, where published."""
    rmse: dict[str, float]
    """RMSE by subset, in the unit of the target, where published."""


@cache
def published() -> tuple[Published, ...]:
    """All published rows, in the order of the paper."""
    lines = files("train.paper").joinpath("published.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))

    def known(row: dict[str, str], score: str) -> dict[str, float]:
        return {subset: float(row[f"{subset}_{score}"]) for subset in SUBSETS if row[f"{subset}_{score}"]}

    return tuple(
        Published(row["target"], row["text_level"], row["stage"], known(row, "r2"), known(row, "rmse")) for row in rows
    )


def published_for(target: str, stage: str, text_level: str | None) -> Published | None:
    """Published results of a stage; None if there are none.

    Parameters
    ----------
    target
        Predicted property.
    stage
        ``image``, ``text``, ``image+text`` or ``clip``.
    text_level
        Text level; None for the image stage, for which the mean of the runs at the three levels is returned, as they
        differ only by chance.
    """
    found = [
        row
        for row in published()
        if (row.target, row.stage) == (target, stage) and text_level in (None, row.text_level)
    ]
    if len(found) <= 1:
        return found[0] if found else None

    def mean(score: str) -> dict[str, float]:
        return {subset: fmean(getattr(row, score)[subset] for row in found) for subset in getattr(found[0], score)}

    return Published(target, "", stage, mean("r2"), mean("rmse"))
