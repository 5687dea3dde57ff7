"""Learning curves of one model: a panel for each fold, a row for each phase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from ecdreg.figures.style import BLUE, GREY, INK, VERMILION, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ecdreg.report.content import Curve

__all__ = ["fold_curves_figure"]


@style()
def fold_curves_figure(curves: Sequence[Curve]) -> Figure:
    """Draw losses by epoch, a column of panels for each fold and a row for each phase.

    Parameters
    ----------
    curves
        Learning curves; losses are mean squared errors of the standardised target.

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
    # Margins are set here [inches]: a layout engine measures every tick of a dozen panels, which takes seconds.
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
    # The contrastive loss of an alignment does not share an axis with the loss of the target.
    grid = figure.subplots(len(phases), len(folds), sharey="row" if "align" in phases else True, squeeze=False)
    by_panel = {(c.phase, c.fold): c for c in curves}
    for row, phase in enumerate(phases):
        for column, fold in enumerate(folds):
            panel = grid[row, column]
            label = "refit" if fold is None else f"fold {fold}"
            panel.set_title(label if len(phases) == 1 else f"{phase}, {label}")
            curve = by_panel.get((phase, fold))
            if curve is None:
                panel.set_axis_off()
                continue
            _curve_panel(panel, curve)
            if row == len(phases) - 1:
                panel.set_xlabel("epoch")
        grid[row, 0].set_ylabel("contrastive loss" if phase == "align" else "loss (MSE, standardised)")
    labelled = (line for panel in grid.flat for line in panel.get_lines() if not str(line.get_label()).startswith("_"))
    lines = {str(line.get_label()): line for line in labelled}
    figure.legend(lines.values(), lines.keys(), loc="lower center", ncols=len(lines))
    return figure


def _curve_panel(panel: Axes, curve: Curve) -> None:
    panel.plot(curve.epoch, curve.train_loss, color=BLUE, linewidth=1.3, label="training rows")
    if np.isfinite(curve.stop_loss).any():
        panel.plot(
            curve.epoch, curve.stop_loss, color=VERMILION, linewidth=1.3, linestyle="--", label="early-stopping rows"
        )
    if curve.best_epoch is not None:
        losses = curve.stop_loss if np.isfinite(curve.stop_loss).any() else curve.train_loss
        at = np.flatnonzero(curve.epoch == curve.best_epoch)
        panel.axvline(curve.best_epoch, color=GREY, linewidth=0.8, linestyle=":")
        if at.size:
            panel.plot(
                [curve.best_epoch],
                [losses[at[0]]],
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
