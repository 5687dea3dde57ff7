"""Why a model says what it says of a crystal, as HTML: shares of modalities, of pixels, of words, of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ecdreg.report.figures import BLUE, GREY, INK, ORANGE, STYLE, field_scale, inline_svg, show_field
from ecdreg.report.markup import document, escaped, figure, number, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from train.analysis.explanation import Explanation, Parts, Pixels

__all__ = ["CSS", "render", "section"]

MODALITIES = {"image": "density slice", "text": "text", "composition": "composition", "density": "density statistics"}
"""What a reader calls them."""

SMOOTHING = 4
"""Pixels of the Gaussian that maps of shares are smoothed by."""

TOP = 12
"""Groups of features that are shown."""

CSS = """
.words { line-height: 3.2; margin: .6rem 0; }
.words span { display: inline-block; position: relative; padding: 0 .3em; margin: 0 .08em; border-radius: 3px;
  line-height: 1.6; border-bottom: 2px solid transparent; }
.words .up { border-bottom-color: #b35806; } .words .down { border-bottom-color: #0072b2; border-bottom-style: dashed; }
.words small { position: absolute; left: 0; right: 0; top: 100%; margin-top: 4px; text-align: center; font-size: .68rem;
  line-height: 1; color: var(--soft); white-space: nowrap; }
"""


def render(explanations: Sequence[tuple[Explanation, str | None]]) -> str:
    """A self-contained page.

    Parameters
    ----------
    explanations
        One item per target: what is explained, and the 90 % interval in words.

    Raises
    ------
    ValueError
        If there is nothing to explain.
    """
    if not explanations:
        raise ValueError("nothing to explain")
    first = explanations[0][0]
    body = "\n".join(section(one, interval=interval) for one, interval in explanations)
    return document(f"{first.formula} · {first.model} · ecdreg explain", body, css=CSS)


def section(content: Explanation, *, interval: str | None, heading: str = "h1") -> str:
    """One explanation.

    Parameters
    ----------
    content
        What is explained.
    interval
        The 90 % interval in words, where there is one.
    heading
        Element of its title.
    """
    return f'<section id="why-{escaped(content.target)}-{escaped(content.source_id)}">' + "\n".join(
        part
        for part in (
            _header(content, interval, heading),
            _modalities(content),
            _pixels(content),
            _words(content),
            *[_features(content, name, parts) for name, parts in content.features.items()],
            "</section>",
        )
        if part
    )


# ----------------------------------------------------------------------------- sections


def _header(content: Explanation, interval: str | None, heading: str) -> str:
    unit = content.unit
    seen = {
        "validation": f"Explained with the model of fold {content.fold}, which has not seen this crystal.",
        "holdout": "This crystal was held out: no fit has seen it.",
        "train": "The model was fitted to this material: its errors elsewhere are larger.",
    }.get(content.subset, "This crystal lies outside the model's split.")
    cards = [(f"{number(content.predicted)} {unit}", f"predicted {content.target}")]
    if interval:
        cards.append((interval, "90 % interval"))
    if content.known is not None:
        cards.append((f"{number(content.known)} {unit}", "known, but suspect" if content.suspect else "known"))
    inner = "".join(f"<div class=card><b>{escaped(v)}</b><span>{escaped(k)}</span></div>" for v, k in cards)
    return (
        f"<{heading}>Why {escaped(content.model)} says {number(content.predicted)} {escaped(unit)} of"
        f" {escaped(content.formula)} ({escaped(content.source_id)})</{heading}>"
        f"<p class=lead>{escaped(seen)}</p><div class=cards>{inner}</div>"
    )


def _modalities(content: Explanation) -> str:
    parts, unit = content.modalities, content.unit
    names = [MODALITIES.get(name, name) for name in parts.names]
    if len(names) == 1:
        return (
            f"<p>Other crystals of the split average {number(parts.empty)} {escaped(unit)}; the {escaped(names[0])}"
            f" makes the difference of {parts.values[0]:+.3g} {escaped(unit)}.</p>"
        )
    whole = float(np.abs(parts.values).sum()) or 1.0
    rows = [
        [name, f"{value:+.3g}", f"{100 * abs(value) / whole:.0f} %"]
        for name, value in zip(names, parts.values, strict=True)
    ]
    rows.append(["sum", f"{parts.values.sum():+.3g}", ""])
    return (
        "<h2>Which modality</h2>"
        + figure(
            _waterfall(content, names),
            "Shares of the modalities",
            "From the mean prediction for other crystals of the split to the prediction for this one. Shapley values,"
            " exact: every combination of modalities was asked, what is absent was taken from other crystals. They sum"
            " to the whole step.",
        )
        + table(
            ["modality", f"share [{unit}]", "of all movement"],
            rows,
            numeric=[1, 2],
            classes=[""] * len(names) + ["sum"],
        )
    )


def _pixels(content: Explanation) -> str:
    if content.pixels is None:
        return ""
    pixels, unit = content.pixels, content.unit
    step = pixels.full - pixels.empty
    missing = abs(pixels.gap) / max(abs(step), 1e-12)
    how = (
        f"Integrated gradients in {pixels.steps} steps"
        if pixels.by_channel is not None
        else f"Shapley values of {pixels.steps} square patches through all channels, spread evenly over each, because"
        " this model has no gradients in its pixels,"
    )
    return "<h2>Which pixels</h2>" + figure(
        _maps(content, pixels),
        f"Slices of {content.formula} and the shares of their pixels",
        f"With the mean slice of the split instead of its own the prediction is {number(pixels.empty)} {unit}, with its"
        f" own {number(pixels.full)} {unit}. {how} divide the step of {step:+.3g} {unit} among the pixels: they sum to"
        f" {pixels.values.sum():+.3g} {unit} (gap {100 * missing:.2g} % of the step). Orange raises the prediction,"
        " violet lowers it; contours are those of the slice. Shares are smoothed by a Gaussian of"
        f" {SMOOTHING} pixels for the eye, which keeps their sum.",
    )


def _words(content: Explanation) -> str:
    if content.words is None or content.text is None:
        return ""
    words, unit = content.words, content.unit
    largest = float(np.abs(words.values).max()) or 1.0
    spans = []
    for name, value in zip(words.names, words.values, strict=True):
        shade = 0.65 * abs(float(value)) / largest
        rgb = "230,120,20" if value >= 0 else "0,114,178"
        spans.append(
            f'<span class={"up" if value >= 0 else "down"} style="background:rgba({rgb},{shade:.2f})">{escaped(name)}'
            f"<small>{value:+.2g}</small></span>"
        )
    step = words.full - words.empty
    error = float(np.nanmax(words.error))
    how = "exact" if error == 0 else f"over random orders of the words (standard error up to {number(error)})"
    return (
        f"<h2>Which words</h2><div class=words>{' '.join(spans)}</div>"
        f"<p class=soft>Shares in {escaped(unit)}; solid lines raise the prediction, dashed ones lower it. Shapley"
        f" values, {how}, whatever is absent left out of the text: they sum to the step from {number(words.empty)}"
        f" without any word to {number(words.full)} with all, {step:+.3g} {escaped(unit)}.</p>"
    )


def _features(content: Explanation, modality: str, parts: Parts) -> str:
    name = MODALITIES.get(modality, modality)
    return f"<h2>Which features of the {escaped(name)}</h2>" + figure(
        _bars(content, modality, parts),
        f"Shares of the {name}",
        f"Shapley values of groups of features over random orders, absent ones at their mean over the split; the"
        f" {min(TOP, len(parts.names))} largest of {len(parts.names)}, which sum to"
        f" {parts.full - parts.empty:+.3g} {content.unit}. Lines are standard errors.",
    )


# ------------------------------------------------------------------------------ figures


def _waterfall(content: Explanation, names: Sequence[str]) -> str:
    parts, unit = content.modalities, content.unit
    order = np.argsort(-np.abs(parts.values))
    with mpl.rc_context(STYLE):
        rows = len(names) + 2
        drawn = Figure(figsize=(10.4, 0.6 + 0.42 * rows), layout="constrained")
        panel = drawn.subplots()
        at = parts.empty
        panel.plot([at], [0], marker="|", color=INK, markersize=16, linestyle="none")
        _number(panel, at, 0, f"{at:.4g}", ahead=True)
        for row, i in enumerate(order, start=1):
            value = float(parts.values[i])
            colour, hatch = (ORANGE, None) if value >= 0 else (BLUE, "///")
            panel.barh(row, value, left=at, color=colour, hatch=hatch, edgecolor=INK, linewidth=0.6, height=0.6)
            panel.plot([at, at], [row - 1, row], color=GREY, linewidth=0.7, linestyle=":")
            at += value
            _number(panel, max(at, at - value), row, f"{value:+.3g}", ahead=True)
        panel.plot([at, at], [rows - 2, rows - 1], color=GREY, linewidth=0.7, linestyle=":")
        panel.plot([at], [rows - 1], marker="|", color=INK, markersize=16, linestyle="none")
        _number(panel, at, rows - 1, f"{at:.4g}", ahead=True)
        if content.known is not None:
            panel.axvline(content.known, color=GREY, linewidth=0.9, linestyle="--")
            word = "known, suspect" if content.suspect else "known"
            panel.annotate(word, (content.known, -0.62), color=GREY, ha="left", va="center", fontsize=8,
                           xytext=(4, 0), textcoords="offset points")  # fmt: skip
        panel.set_yticks(range(rows), ["other crystals, mean", *[names[i] for i in order], content.formula])
        panel.set(ylim=(rows - 0.3, -0.7), xlabel=f"{content.target} [{unit}]")
        panel.margins(x=0.12)
        panel.spines["left"].set_visible(False)
        panel.tick_params(axis="y", length=0)
        return inline_svg(drawn, f"{content.target}-modalities")


def _number(panel: Axes, x: float, y: float, text: str, *, ahead: bool) -> None:
    panel.annotate(
        text, (x, y), xytext=(7 if ahead else -7, 0), textcoords="offset points", va="center", ha="left", fontsize=8.5
    )


def _maps(content: Explanation, pixels: Pixels) -> str:
    channels, window = len(pixels.channels), pixels.window
    area = 1.0 if window is None else window[0] * window[1] / float(np.prod(pixels.image.shape[1:]))
    per = f"{content.unit}/{'pixel' if window is None else 'Å²'}"
    smooth = np.stack([_smoothed(pixels.values[c]) for c in range(channels)]) / area
    limit = float(np.quantile(np.abs(smooth), 0.998)) or 1.0
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(10.4, 0.3 + 4.0 * channels), layout="constrained")
        grid = drawn.subplots(channels, 2, squeeze=False)
        for c, kind in enumerate(pixels.channels):
            field = pixels.image[c].astype(np.float64)
            scale = field_scale([field])
            left = show_field(grid[c, 0], field, extent=window, scale=scale)
            bar = drawn.colorbar(left, ax=grid[c, 0], extend="both", pad=0.01, aspect=22)
            bar.outline.set_visible(False)
            ticks = [part * scale.high for part in ((-1, -0.1, 0, 0.1, 1) if scale.signed else (0.01, 0.1, 1))]
            bar.set_ticks(ticks, labels=[f"{tick:.2g}" for tick in ticks])
            bar.ax.minorticks_off()
            grid[c, 0].set_title(f"{kind}")
            box = _box(field, window)
            norm = TwoSlopeNorm(0.0, -limit, limit)
            right = grid[c, 1].imshow(
                smooth[c], origin="upper", extent=box, cmap="PuOr_r", norm=norm, interpolation="bilinear"
            )
            levels = np.quantile(field, [0.6, 0.8, 0.93])
            if levels[0] < levels[-1]:
                grid[c, 1].contour(
                    field, np.unique(levels), origin="image", extent=box, colors=INK, linewidths=0.4, alpha=0.5
                )
            bar = drawn.colorbar(right, ax=grid[c, 1], extend="both", pad=0.01, aspect=22)
            bar.set_label(per)
            bar.outline.set_visible(False)
            grid[c, 1].set_title(f"shares of its pixels, sum {pixels.values[c].sum():+.3g} {content.unit}")
            for panel in grid[c]:
                panel.set(xlabel="Å" if window else "pixel", ylabel="Å" if window else "pixel")
                panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
                panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
                for spine in panel.spines.values():
                    spine.set_visible(False)
        return inline_svg(drawn, f"{content.target}-pixels")


def _box(field: NDArray[np.float64], window: tuple[float, float] | None) -> tuple[float, float, float, float]:
    if window is None:
        return (0.0, float(field.shape[1]), float(field.shape[0]), 0.0)
    return (-window[0] / 2, window[0] / 2, -window[1] / 2, window[1] / 2)


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(values, SMOOTHING, mode="reflect"))


def _bars(content: Explanation, modality: str, parts: Parts) -> str:
    order: Any = np.argsort(-np.abs(parts.values))[:TOP]
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(10.4, 0.7 + 0.3 * len(order)), layout="constrained")
        panel = drawn.subplots()
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
        return inline_svg(drawn, f"{content.target}-{modality}")
