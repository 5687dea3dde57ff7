"""Fields on a slice of a crystal: colours, contours, and the slices of several crystals in one figure.

A field with a sign has contours besides its colours: solid where electrons accumulate, dashed where they are depleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import AsinhNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ecdreg.figures.style import INK, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

    from ecdreg.report.content import Sample

__all__ = ["FieldScale", "field_box", "field_scale", "show_field", "slices_figure"]


@style()
def slices_figure(
    samples: Sequence[Sample],
    *,
    channels: Sequence[str],
    extent: tuple[float, float] | None,
    unit: str | None,
) -> Figure:
    """Draw slices of a few crystals, channel by channel, on one scale for all crystals.

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

    Raises
    ------
    ValueError
        If no sample has pixels.
    """
    drawn = [(s, s.pixels.astype(np.float64)) for s in samples if s.pixels is not None]
    if not drawn:
        raise ValueError("no slices to draw")
    n_channels = drawn[0][1].shape[0]
    figure = Figure(figsize=(10.4, 0.4 + 2.45 * n_channels), layout="constrained")
    grid = figure.subplots(n_channels, len(drawn), squeeze=False)
    for channel in range(n_channels):
        name = channels[channel] if channel < len(channels) else f"channel {channel}"
        scale = field_scale([pixels[channel] for _, pixels in drawn])
        for column, (sample, pixels) in enumerate(drawn):
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
    return figure


def field_box(field: NDArray[np.float64], window: tuple[float, float] | None) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of a slice (H, W), in Å where the window is known, else in pixels."""
    if window is None:
        return (0.0, float(field.shape[1]), float(field.shape[0]), 0.0)
    return (-window[0] / 2, window[0] / 2, -window[1] / 2, window[1] / 2)


class FieldScale:
    """Colours of a channel, the same for all crystals: linear around zero, logarithmic far from it.

    A density spans four decades between the bonds and the cores; a linear scale shows only the cores.
    """

    def __init__(self, low: float, high: float, *, linear: float, signed: bool) -> None:
        self.low, self.high, self.signed = low, high, signed
        self.colours = "PuOr_r" if signed else "viridis"
        self.norm = AsinhNorm(linear_width=linear, vmin=low, vmax=high)
        self.levels = high * np.array([-0.5, -0.05, 0.05, 0.5]) if signed else np.empty(0)


def field_scale(fields: Sequence[NDArray[np.float64]]) -> FieldScale:
    """Choose the colours that fields (H, W) of one channel share."""
    # Quantiles: the cusp at a single nucleus would otherwise take the whole scale.
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


def show_field(
    panel: Axes, field: NDArray[np.float64], *, extent: tuple[float, float] | None, scale: FieldScale
) -> AxesImage:
    """Draw a slice with its contours.

    Parameters
    ----------
    panel
        Axes to draw on.
    field
        (H, W)
    extent
        Width and height of the window [Å]; None: axes in pixels.
    scale
        Colours of the field.

    Returns
    -------
    AxesImage
        The image, for a colour bar.
    """
    # Row 0 is the top. In Å the origin is the centre of the window, and y points up.
    box = field_box(field, extent)
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
