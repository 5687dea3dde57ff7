"""Explanation of a prediction: waterfall of the modalities, maps of the pixels, bars of groups of features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ecdreg.figures.fields import field_box, field_scale, show_field
from ecdreg.figures.style import BLUE, GREY, INK, ORANGE, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from train.analysis.explanation import Explanation, Parts, Pixels

__all__ = ["MODALITIES", "SMOOTHING", "TOP", "features_figure", "modalities_figure", "pixels_figure"]

MODALITIES = {"image": "density slice", "text": "text", "composition": "composition", "density": "density statistics"}
"""Names of the modalities on a page."""

SMOOTHING = 4
"""Standard deviation of the Gaussian that smooths maps of shares [pixels]."""

TOP = 12
"""Number of groups of features in a figure."""


@style()
def modalities_figure(content: Explanation) -> Figure:
    """Draw the shares of the modalities as a waterfall, from the mean of other crystals to the prediction.

    Parameters
    ----------
    content
        The explanation of one prediction.
    """
    parts, unit = content.modalities, content.unit
    names = [MODALITIES.get(name, name) for name in parts.names]
    order = np.argsort(-np.abs(parts.values))
    rows = len(names) + 2
    figure = Figure(figsize=(10.4, 0.6 + 0.42 * rows), layout="constrained")
    panel = figure.subplots()
    at = parts.empty
    panel.plot([at], [0], marker="|", color=INK, markersize=16, linestyle="none")
    _value(panel, at, 0, f"{at:.4g}")
    for row, i in enumerate(order, start=1):
        value = float(parts.values[i])
        colour, hatch = (ORANGE, None) if value >= 0 else (BLUE, "///")
        panel.barh(row, value, left=at, color=colour, hatch=hatch, edgecolor=INK, linewidth=0.6, height=0.6)
        panel.plot([at, at], [row - 1, row], color=GREY, linewidth=0.7, linestyle=":")
        at += value
        _value(panel, max(at, at - value), row, f"{value:+.3g}")
    panel.plot([at, at], [rows - 2, rows - 1], color=GREY, linewidth=0.7, linestyle=":")
    panel.plot([at], [rows - 1], marker="|", color=INK, markersize=16, linestyle="none")
    _value(panel, at, rows - 1, f"{at:.4g}")
    if content.known is not None:
        panel.axvline(content.known, color=GREY, linewidth=0.9, linestyle="--")
        label = "true value, suspect" if content.suspect else "true value"
        panel.annotate(
            label, (content.known, -0.62), color=GREY, ha="left", va="center", fontsize=8, xytext=(4, 0),
            textcoords="offset points",
        )  # fmt: skip
    panel.set_yticks(range(rows), ["mean of other crystals", *[names[i] for i in order], content.formula])
    panel.set(ylim=(rows - 0.3, -0.7), xlabel=f"{content.target} [{unit}]")
    panel.margins(x=0.12)
    panel.spines["left"].set_visible(False)
    panel.tick_params(axis="y", length=0)
    return figure


@style()
def pixels_figure(content: Explanation, pixels: Pixels) -> Figure:
    """Draw each channel of the slice beside the smoothed map of the shares of its pixels.

    Parameters
    ----------
    content
        The explanation of one prediction.
    pixels
        Its shares of the pixels.
    """
    channels, window = len(pixels.channels), pixels.window
    area = 1.0 if window is None else window[0] * window[1] / float(np.prod(pixels.image.shape[1:]))
    unit = f"{content.unit}/{'pixel' if window is None else 'Å²'}"
    smooth = np.stack([_smoothed(pixels.values[c]) for c in range(channels)]) / area
    limit = float(np.quantile(np.abs(smooth), 0.998)) or 1.0
    figure = Figure(figsize=(10.4, 0.3 + 4.0 * channels), layout="constrained")
    grid = figure.subplots(channels, 2, squeeze=False)
    for c, kind in enumerate(pixels.channels):
        field = pixels.image[c].astype(np.float64)
        scale = field_scale([field])
        left = show_field(grid[c, 0], field, extent=window, scale=scale)
        bar = figure.colorbar(left, ax=grid[c, 0], extend="both", pad=0.01, aspect=22)
        bar.outline.set_visible(False)
        ticks = [part * scale.high for part in ((-1, -0.1, 0, 0.1, 1) if scale.signed else (0.01, 0.1, 1))]
        bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
        bar.ax.minorticks_off()
        grid[c, 0].set_title(f"{kind}")
        box = field_box(field, window)
        norm = TwoSlopeNorm(0.0, -limit, limit)
        right = grid[c, 1].imshow(
            smooth[c], origin="upper", extent=box, cmap="PuOr_r", norm=norm, interpolation="bilinear"
        )
        levels = np.quantile(field, [0.6, 0.8, 0.93])
        if levels[0] < levels[-1]:
            grid[c, 1].contour(
                field, np.unique(levels), origin="image", extent=box, colors=INK, linewidths=0.4, alpha=0.5
            )
        bar = figure.colorbar(right, ax=grid[c, 1], extend="both", pad=0.01, aspect=22)
        bar.set_label(unit)
        bar.outline.set_visible(False)
        grid[c, 1].set_title(f"shares of the pixels, sum {pixels.values[c].sum():+.3g} {content.unit}")
        for panel in grid[c]:
            panel.set(xlabel="Å" if window else "pixel", ylabel="Å" if window else "pixel")
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
            for spine in panel.spines.values():
                spine.set_visible(False)
    return figure


@style()
def features_figure(content: Explanation, parts: Parts) -> Figure:
    """Draw the largest shares of groups of features as bars, with their standard errors.

    Parameters
    ----------
    content
        The explanation of one prediction.
    parts
        Its shares of the features of one modality.
    """
    order: Any = np.argsort(-np.abs(parts.values))[:TOP]
    figure = Figure(figsize=(10.4, 0.7 + 0.3 * len(order)), layout="constrained")
    panel = figure.subplots()
    values, errors = parts.values[order], np.nan_to_num(parts.error[order])
    bars = panel.barh(
        range(len(order)),
        values,
        xerr=errors,
        color=[ORANGE if v >= 0 else BLUE for v in values],
        edgecolor=INK,
        linewidth=0.6,
        height=0.66,
        error_kw={"elinewidth": 0.8, "ecolor": INK},
    )
    for bar, value in zip(bars, values, strict=True):
        bar.set_hatch(None if value >= 0 else "///")
    panel.axvline(0.0, color=GREY, linewidth=0.8)
    panel.set_yticks(range(len(order)), [parts.names[i] for i in order])
    panel.set(ylim=(len(order) - 0.4, -0.6), xlabel=f"share in {content.target} [{content.unit}]")
    panel.tick_params(axis="y", length=0)
    return figure


def _value(panel: Axes, x: float, y: float, text: str) -> None:
    panel.annotate(text, (x, y), xytext=(7, 0), textcoords="offset points", va="center", ha="left", fontsize=8.5)


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(values, SMOOTHING, mode="reflect"))
