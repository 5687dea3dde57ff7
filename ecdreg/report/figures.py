"""The figures of a report, as inline SVG.

Colours are those of Okabe and Ito, which stay apart for colour-blind readers; every
distinction is also one of shape, fill or line style, so that a grey print keeps it. Fields
with a sign carry contours besides their colours: solid where electrons gather, dashed
where they are depleted.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import AsinhNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ecdreg.report.content import CalibrationPoint, Curve, Point, Sample

__all__ = [
    "FieldScale",
    "field_scale",
    "inline_svg",
    "intervals",
    "learning_curves",
    "parity",
    "show_field",
    "slices",
]

BLUE = "#0072B2"
ORANGE = "#E69F00"
VERMILION = "#D55E00"
INK = "#1a1a1a"
GREY = "#767676"

STYLE: Any = {  # Any: matplotlib's own type lists every key
    "font.size": 9.0,
    "font.family": ["DejaVu Sans"],
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "savefig.transparent": True,
    "svg.fonttype": "path",
}

RASTER_ABOVE = 3000
"""Points above which a scatter plot is drawn as pixels, to keep the file small."""


def parity(points: Sequence[Point], *, target: str, unit: str) -> str:
    """Predicted against true values, out of fold and on the holdout, with the residuals.

    Parameters
    ----------
    points
        Predictions with their labels, in the unit of the target.
    target, unit
        For the labels of the axes.

    Returns
    -------
    str
        One ``<svg>`` element.

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
    with mpl.rc_context(STYLE):
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
        return inline_svg(figure, f"{target}-parity")


def intervals(points: Sequence[Point], calibration: Sequence[CalibrationPoint], *, target: str, unit: str) -> str:
    """The holdout's intervals beside the true values, and how many intervals of each level hold theirs.

    Parameters
    ----------
    points
        Predictions with their labels and intervals, in the unit of the target.
    calibration
        Coverage by level; may be empty.
    target, unit
        For the labels of the axes.

    Returns
    -------
    str
        One ``<svg>`` element.

    Raises
    ------
    ValueError
        If no prediction has an interval.
    """
    shown = [p for p in points if p.lower is not None and p.upper is not None]
    if not shown:
        raise ValueError("no intervals to draw")
    held_out = [p for p in shown if p.subset == "holdout"]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 3.7), layout="constrained")
        axes = figure.subplots(1, 2, width_ratios=[1.9, 1])
        _interval_panel(axes[0], held_out or shown)
        axes[0].set(
            title="Holdout: intervals of 90 %" if held_out else "Out of fold: intervals of 90 %",
            xlabel=f"crystals, by true {target}",
            ylabel=f"{target} [{unit}]",
        )
        _calibration_panel(axes[1], calibration)
        return inline_svg(figure, f"{target}-intervals")


def learning_curves(curves: Sequence[Curve], *, target: str) -> str:
    """Losses by epoch, one panel per fold and one row per phase.

    Parameters
    ----------
    curves
        Learning curves; losses are mean squared errors of the standardised target.
    target
        Keeps the ids of this figure apart from those of other targets.

    Returns
    -------
    str
        One ``<svg>`` element.

    Raises
    ------
    ValueError
        If there are no curves.
    """
    if not curves:
        raise ValueError("no learning curves to draw")
    phases = list(dict.fromkeys(c.phase for c in curves))
    folds: list[int | None] = [*sorted({c.fold for c in curves if c.fold is not None})]
    if any(c.fold is None for c in curves):
        folds.append(None)
    with mpl.rc_context(STYLE):
        # Placed by hand [inches]: measuring every tick of a dozen panels takes seconds.
        width, height, below, above = 10.4, 0.75 + 2.1 * len(phases), 0.75, 0.25
        figure = Figure(figsize=(width, height))
        figure.subplots_adjust(
            left=0.62 / width,
            right=1 - 0.1 / width,
            bottom=below / height,
            top=1 - above / height,
            wspace=0.12,
            hspace=0.32,
        )
        # An alignment has a loss of its own: its rows do not share an axis with those of the target's.
        grid = figure.subplots(len(phases), len(folds), sharey="row" if "align" in phases else True, squeeze=False)
        by_place = {(c.phase, c.fold): c for c in curves}
        for row, phase in enumerate(phases):
            for column, fold in enumerate(folds):
                panel = grid[row, column]
                where = "refit" if fold is None else f"fold {fold}"
                panel.set_title(where if len(phases) == 1 else f"{phase}, {where}")
                curve = by_place.get((phase, fold))
                if curve is None:
                    panel.set_axis_off()
                    continue
                _curve_panel(panel, curve)
                if row == len(phases) - 1:
                    panel.set_xlabel("epoch")
            grid[row, 0].set_ylabel("contrastive loss" if phase == "align" else "loss (MSE, standardised)")
        labelled = (
            line for panel in grid.flat for line in panel.get_lines() if not str(line.get_label()).startswith("_")
        )
        lines = {str(line.get_label()): line for line in labelled}
        figure.legend(lines.values(), lines.keys(), loc="lower center", ncols=len(lines))
        return inline_svg(figure, f"{target}-epochs")


def slices(
    samples: Sequence[Sample],
    *,
    channels: Sequence[str],
    extent: tuple[float, float] | None,
    unit: str | None,
    target: str,
) -> str:
    """Slices of a few crystals, channel by channel, on one scale for all crystals.

    Parameters
    ----------
    samples
        Crystals with pixels (channels, height, width), all of one recipe.
    channels
        A name for each channel.
    extent
        Width and height of the window [Å]; None where the recipe has no metric: axes in pixels.
    unit
        Unit of the pixels, for the colour bars; None: no unit.
    target
        Keeps the ids of this figure apart from those of other targets.

    Returns
    -------
    str
        One ``<svg>`` element.

    Raises
    ------
    ValueError
        If no sample has pixels.
    """
    shown = [(s, s.pixels.astype(np.float64)) for s in samples if s.pixels is not None]
    if not shown:
        raise ValueError("no slices to draw")
    n_channels = shown[0][1].shape[0]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 0.4 + 2.45 * n_channels), layout="constrained")
        grid = figure.subplots(n_channels, len(shown), squeeze=False)
        for channel in range(n_channels):
            name = channels[channel] if channel < len(channels) else f"channel {channel}"
            scale = field_scale([pixels[channel] for _, pixels in shown])
            for column, (sample, pixels) in enumerate(shown):
                panel = grid[channel, column]
                image = show_field(panel, pixels[channel], extent=extent, scale=scale)
                if channel == 0:
                    panel.set_title(f"{sample.formula}\n{sample.source_id}")
                if column == 0:
                    panel.set_ylabel(f"{name}\n{'Å' if extent else 'pixel'}")
                if channel == n_channels - 1:
                    panel.set_xlabel("Å" if extent else "pixel")
            bar = figure.colorbar(image, ax=list(grid[channel]), extend="both", pad=0.01, aspect=18)
            bar.set_label(unit or "no unit")
            bar.outline.set_visible(False)
        return inline_svg(figure, f"{target}-slices")


# ------------------------------------------------------------------------------- panels


def _parity_panel(panel: Axes, points: Sequence[Point], *, subset: str) -> None:
    panel.axline((0.0, 0.0), slope=1.0, color=GREY, linewidth=0.8, zorder=1)
    panel.grid(color="#dddddd", linewidth=0.5)
    panel.set_axisbelow(True)
    if not points:
        panel.text(0.5, 0.5, "no rows", transform=panel.transAxes, ha="center", color=GREY)
        return
    true = np.array([p.true for p in points])
    predicted = np.array([p.predicted for p in points])
    style: dict[str, Any] = (
        {"marker": "o", "facecolors": "none", "edgecolors": BLUE, "linewidths": 0.9, "s": 20}
        if subset == "validation"
        else {"marker": "D", "facecolors": ORANGE, "edgecolors": INK, "linewidths": 0.6, "s": 22}
    )
    panel.scatter(true, predicted, rasterized=len(points) > RASTER_ABOVE, zorder=3, **style)
    panel.text(0.04, 0.96, f"n = {len(points)}", transform=panel.transAxes, va="top")


def _interval_panel(panel: Axes, points: Sequence[Point]) -> None:
    ranked = sorted(points, key=lambda p: (p.true, p.source_id))
    place = np.arange(len(ranked))
    low, high = np.array([p.lower for p in ranked]), np.array([p.upper for p in ranked])
    true, predicted = np.array([p.true for p in ranked]), np.array([p.predicted for p in ranked])
    held = (low <= true) & (true <= high)
    strange = np.array([bool(p.out_of_domain) for p in ranked])
    panel.vlines(place[held], low[held], high[held], color=BLUE, alpha=0.45, linewidth=3.0, label="interval")
    panel.vlines(
        place[~held],
        low[~held],
        high[~held],
        color=VERMILION,
        linewidth=1.6,
        linestyles="dashed",
        label="interval that misses",
    )
    panel.plot(place, predicted, linestyle="none", marker="_", color=INK, markersize=7, label="predicted")
    panel.plot(place, true, linestyle="none", marker="o", color=ORANGE, markeredgecolor=INK, markersize=4, label="true")
    if strange.any():
        panel.plot(place[strange], high[strange], linestyle="none", marker="x", color=VERMILION, label="out of domain")
    panel.grid(color="#dddddd", linewidth=0.5, axis="y")
    panel.set_axisbelow(True)
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    panel.legend(loc="upper left", handlelength=1.4, ncols=2)


def _calibration_panel(panel: Axes, calibration: Sequence[CalibrationPoint]) -> None:
    panel.axline((0.0, 0.0), slope=1.0, color=GREY, linewidth=0.8, zorder=1)
    panel.set(xlim=(0.45, 1.0), ylim=(0.35, 1.02), xlabel="promised", ylabel="held", title="Calibration")
    panel.grid(color="#dddddd", linewidth=0.5)
    panel.set_axisbelow(True)
    if not calibration:
        panel.text(
            0.5, 0.5, "no weights to make\nother levels with", transform=panel.transAxes, ha="center", color=GREY
        )
        return
    for subset, colour, marker, label in (
        ("validation", BLUE, "o", "out of fold"),
        ("holdout", VERMILION, "D", "holdout, 95 % binomial"),
    ):
        chosen = sorted((p for p in calibration if p.subset == subset), key=lambda p: p.level)
        if not chosen:
            continue
        level, share = np.array([p.level for p in chosen]), np.array([p.share for p in chosen])
        bars = None
        if subset == "holdout":
            bars = np.array([[p.share - p.low for p in chosen], [p.high - p.share for p in chosen]])
        panel.errorbar(
            level, share, yerr=bars, color=colour, marker=marker, markersize=5, linewidth=1.2, capsize=2.5, label=label
        )
    panel.legend(loc="lower right", handlelength=1.4)


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


def _curve_panel(panel: Axes, curve: Curve) -> None:
    panel.plot(curve.epoch, curve.train_loss, color=BLUE, linewidth=1.3, label="training rows")
    if np.isfinite(curve.stop_loss).any():
        panel.plot(
            curve.epoch, curve.stop_loss, color=VERMILION, linewidth=1.3, linestyle="--", label="early-stopping rows"
        )
    if curve.best_epoch is not None:
        shown = curve.stop_loss if np.isfinite(curve.stop_loss).any() else curve.train_loss
        at = np.flatnonzero(curve.epoch == curve.best_epoch)
        panel.axvline(curve.best_epoch, color=GREY, linewidth=0.8, linestyle=":")
        if at.size:
            panel.plot(
                [curve.best_epoch],
                [shown[at[0]]],
                marker="v",
                color=INK,
                markersize=6,
                linestyle="none",
                label="kept epoch",
            )
    panel.set_yscale("log")
    panel.yaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    panel.grid(color="#dddddd", linewidth=0.5, which="major")
    panel.set_axisbelow(True)


def show_field(
    panel: Axes, field: NDArray[np.float64], *, extent: tuple[float, float] | None, scale: FieldScale
) -> Any:
    """Draw a slice with its contours; returns the image.

    Parameters
    ----------
    panel
        To draw on.
    field
        (H, W)
    extent
        Width and height of the window [Å]; None: axes in pixels.
    scale
        Its colours.
    """
    # Row 0 is the top; in Å the middle of the window is the origin, and y points up.
    width, height = extent if extent else (float(field.shape[1]), float(field.shape[0]))
    box = (-width / 2, width / 2, -height / 2, height / 2) if extent else (0.0, width, height, 0.0)
    image = panel.imshow(
        field, origin="upper", extent=box, cmap=scale.colours, norm=scale.norm, interpolation="nearest"
    )
    levels = scale.levels[(scale.levels > field.min()) & (scale.levels < field.max())]
    if levels.size:
        styles = ["dashed" if level < 0 else "solid" for level in levels]
        panel.contour(field, levels, origin="image", extent=box, colors=INK, linewidths=0.5, linestyles=styles)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=True))
    for spine in panel.spines.values():
        spine.set_visible(False)
    return image


class FieldScale:
    """Colours of a channel, the same for all crystals shown: linear around zero, logarithmic far from it.

    A density spans four decades between the bonds and the cores; on a linear scale only cores are seen.
    """

    def __init__(self, low: float, high: float, *, linear: float, signed: bool) -> None:
        self.low, self.high, self.signed = low, high, signed
        self.colours = "PuOr_r" if signed else "viridis"
        self.norm = AsinhNorm(linear_width=linear, vmin=low, vmax=high)
        self.levels = high * np.array([-0.5, -0.05, 0.05, 0.5]) if signed else np.empty(0)


def field_scale(fields: Sequence[NDArray[np.float64]]) -> FieldScale:
    """Colours that fields (H, W) of one channel share."""
    # Quantiles, because a cusp at one nucleus would take the whole scale.
    everything = np.concatenate([f.ravel() for f in fields])
    low, high = (float(q) for q in np.quantile(everything, [0.01, 0.99]))
    signed = low < 0 < high and -low > 0.15 * high
    if signed:
        high = max(-low, high)
        low = -high
    elif high <= low:
        high = low + 1.0
    linear = float(np.median(np.abs(everything)))
    return FieldScale(low, high, linear=max(linear, 1e-3 * (high - low)), signed=signed)


def inline_svg(figure: Figure, name: str) -> str:
    """One ``<svg>`` element, whose ids begin with the name."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "ecdreg"}):  # else every call has other ids
        FigureCanvasSVG(figure).print_svg(  # type: ignore[no-untyped-call]
            buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Figures of one page must not share ids: those that are referred to get the figure's name, the others go.
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    return re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
