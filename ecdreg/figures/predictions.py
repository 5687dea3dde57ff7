"""Predictions of a model: parity plot, residuals, prediction intervals and their calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ecdreg.figures.style import BLUE, GREY, INK, ORANGE, VERMILION, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ecdreg.report.content import CalibrationPoint, Point

__all__ = ["intervals_figure", "parity_figure"]

RASTER_ABOVE = 3000
"""Number of points above which a scatter plot is drawn as pixels, to keep the file small."""


@style()
def parity_figure(points: Sequence[Point], *, target: str, unit: str) -> Figure:
    """Draw predicted against true values, out of fold and on the holdout, with the residuals.

    Parameters
    ----------
    points
        Predictions with their true values, in the unit of the target.
    target, unit
        Text of the axis labels.

    Raises
    ------
    ValueError
        If there are no points.
    """
    if not points:
        raise ValueError("no predictions to draw")
    values = np.array([[p.true, p.predicted] for p in points])
    margin = 0.04 * float(np.ptp(values)) or 1.0
    low, high = float(values.min()) - margin, float(values.max()) + margin
    figure = Figure(figsize=(10.4, 3.7), layout="constrained")
    axes = figure.subplots(1, 3)
    for panel, subset, title in (
        (axes[0], "validation", "Cross-validation, out of fold"),
        (axes[1], "holdout", "Holdout"),
    ):
        _parity_panel(panel, [p for p in points if p.subset == subset], subset=subset)
        panel.set(xlim=(low, high), ylim=(low, high), aspect="equal", title=title)
        panel.set_xlabel(f"{target}, true [{unit}]")
        panel.set_ylabel(f"predicted [{unit}]")
    _residuals(axes[2], points, unit=unit)
    return figure


@style()
def intervals_figure(
    points: Sequence[Point], calibration: Sequence[CalibrationPoint], *, target: str, unit: str
) -> Figure:
    """Draw the 90 % intervals of the holdout beside the true values, and the empirical coverage by confidence.

    Parameters
    ----------
    points
        Predictions with their true values and intervals, in the unit of the target.
    calibration
        Empirical coverage by confidence; may be empty.
    target, unit
        Text of the axis labels.

    Raises
    ------
    ValueError
        If no prediction has an interval.
    """
    bounded = [p for p in points if p.lower is not None and p.upper is not None]
    if not bounded:
        raise ValueError("no intervals to draw")
    held_out = [p for p in bounded if p.subset == "holdout"]
    figure = Figure(figsize=(10.4, 3.7), layout="constrained")
    axes = figure.subplots(1, 2, width_ratios=[1.9, 1])
    _interval_panel(axes[0], held_out or bounded)
    axes[0].set(
        title="Holdout: 90 % intervals" if held_out else "Out of fold: 90 % intervals",
        xlabel=f"crystals in the order of true {target}",
        ylabel=f"{target} [{unit}]",
    )
    _calibration_panel(axes[1], calibration)
    return figure


def _parity_panel(panel: Axes, points: Sequence[Point], *, subset: str) -> None:
    panel.axline((0.0, 0.0), slope=1.0, color=GREY, linewidth=0.8, zorder=1)
    panel.grid(color="#dddddd", linewidth=0.5)
    panel.set_axisbelow(True)
    if not points:
        panel.text(0.5, 0.5, "no rows", transform=panel.transAxes, ha="center", color=GREY)
        return
    true = np.array([p.true for p in points])
    predicted = np.array([p.predicted for p in points])
    look: dict[str, Any] = (
        {"marker": "o", "facecolors": "none", "edgecolors": BLUE, "linewidths": 0.9, "s": 20}
        if subset == "validation"
        else {"marker": "D", "facecolors": ORANGE, "edgecolors": INK, "linewidths": 0.6, "s": 22}
    )
    panel.scatter(true, predicted, rasterized=len(points) > RASTER_ABOVE, zorder=3, **look)
    panel.text(0.04, 0.96, f"n = {len(points)}", transform=panel.transAxes, va="top")


def _residuals(panel: Axes, points: Sequence[Point], *, unit: str) -> None:
    errors = {s: np.array([p.error for p in points if p.subset == s]) for s in ("validation", "holdout")}
    widest = max(float(np.abs(e).max()) for e in errors.values() if e.size) or 1.0
    bins = np.linspace(-widest, widest, 26).tolist()
    if errors["validation"].size:
        panel.hist(errors["validation"], bins, density=True, color=BLUE, alpha=0.35, label="out of fold")
    if errors["holdout"].size:
        panel.hist(errors["holdout"], bins, density=True, histtype="step", color=INK, linewidth=1.4, label="holdout")
    panel.axvline(0.0, color=GREY, linewidth=0.8)
    panel.set(title="Residuals", xlabel=f"predicted - true [{unit}]", ylabel=f"density [1/({unit})]")
    panel.legend(loc="upper left", handlelength=1.2)


def _interval_panel(panel: Axes, points: Sequence[Point]) -> None:
    ranked = sorted(points, key=lambda p: (p.true, p.source_id))
    rank = np.arange(len(ranked))
    low, high = np.array([p.lower for p in ranked]), np.array([p.upper for p in ranked])
    true, predicted = np.array([p.true for p in ranked]), np.array([p.predicted for p in ranked])
    covered = (low <= true) & (true <= high)
    outside = np.array([bool(p.out_of_domain) for p in ranked])
    panel.vlines(rank[covered], low[covered], high[covered], color=BLUE, alpha=0.45, linewidth=3.0, label="interval")
    panel.vlines(
        rank[~covered],
        low[~covered],
        high[~covered],
        color=VERMILION,
        linewidth=1.6,
        linestyles="dashed",
        label="interval without the true value",
    )
    panel.plot(rank, predicted, linestyle="none", marker="_", color=INK, markersize=7, label="predicted")
    panel.plot(rank, true, linestyle="none", marker="o", color=ORANGE, markeredgecolor=INK, markersize=4, label="true")
    if outside.any():
        panel.plot(rank[outside], high[outside], linestyle="none", marker="x", color=VERMILION, label="out of domain")
    panel.grid(color="#dddddd", linewidth=0.5, axis="y")
    panel.set_axisbelow(True)
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    panel.legend(loc="upper left", handlelength=1.4, ncols=2)


def _calibration_panel(panel: Axes, calibration: Sequence[CalibrationPoint]) -> None:
    panel.axline((0.0, 0.0), slope=1.0, color=GREY, linewidth=0.8, zorder=1)
    panel.set(
        xlim=(0.45, 1.0), ylim=(0.35, 1.02), xlabel="confidence", ylabel="empirical coverage", title="Calibration"
    )
    panel.grid(color="#dddddd", linewidth=0.5)
    panel.set_axisbelow(True)
    if not calibration:
        panel.text(
            0.5,
            0.5,
            "other confidences need\nthe weights of the model",
            transform=panel.transAxes,
            ha="center",
            color=GREY,
        )
        return
    for subset, colour, marker, label in (
        ("validation", BLUE, "o", "out of fold"),
        ("holdout", VERMILION, "D", "holdout, 95 % binomial interval"),
    ):
        chosen = sorted((p for p in calibration if p.subset == subset), key=lambda p: p.confidence)
        if not chosen:
            continue
        confidence, coverage = np.array([p.confidence for p in chosen]), np.array([p.coverage for p in chosen])
        bars = None
        if subset == "holdout":
            bars = np.array([[p.coverage - p.low for p in chosen], [p.high - p.coverage for p in chosen]])
        panel.errorbar(
            confidence,
            coverage,
            yerr=bars,
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.2,
            capsize=2.5,
            label=label,
        )
    panel.legend(loc="lower right", handlelength=1.4)
