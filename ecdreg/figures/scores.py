"""Scores by stage and text level, beside the published ones and the composition baseline (figure 2 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from ecdreg.figures.canvas import SERIES
from train.paper.matrix import STAGES
from train.paper.published import published_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from train.paper.reproduction import Line, Stat

__all__ = ["draw"]

_HATCHES = {"image": "", "text": "///", "image+text": "...", "clip": "xxx"}


def draw(lines: Sequence[Line]) -> Figure:
    """Draw R² of the scored folds and of the holdout, a column for each target and one for their average.

    Parameters
    ----------
    lines
        Of one recipe; the last phase of each model is drawn.
    """
    last = [line for line in lines if line.last]
    targets = list(dict.fromkeys(line.target for line in last))
    columns: list[str | None] = [*targets, *([None] if len(targets) > 1 else [])]
    figure = Figure(figsize=(1.2 + 3.3 * len(columns), 7.2), layout="constrained")
    panels = figure.subplots(2, len(columns), squeeze=False, sharey=True)
    for row, (subset, title) in enumerate((("val", "folds left out"), ("test", "holdout"))):
        for column, target in enumerate(columns):
            chosen = [line for line in last if target in (None, line.target)]
            panel = panels[row, column]
            _panel(panel, chosen, subset, n_targets=1 if target else len(targets))
            letter = "abcdefgh"[column]
            panel.set_title(f"{letter}  {target or 'average over targets'}" if row == 0 else "")
        panels[row, 0].set_ylabel(f"R², {title}")
    # One panel may lack a stage that another has: the legend is of all of them.
    known = [panel.get_legend_handles_labels() for panel in panels.flat]
    marks = {label: handle for handles, labels in known for handle, label in zip(handles, labels, strict=True)}
    names = [*(stage for stage in STAGES if stage in marks), *(name for name in marks if name not in STAGES)]
    figure.legend([marks[name] for name in names], names, loc="outside lower center", ncols=len(names))
    return figure


def _panel(panel: Axes, lines: Sequence[Line], subset: str, *, n_targets: int) -> None:
    stages = [stage for stage in STAGES if any(line.row.stage == stage for line in lines)]
    levels = list(dict.fromkeys(line.row.text_level for line in lines if line.row.text_level is not None))
    groups: list[str | None] = [*([None] if "image" in stages else []), *levels]
    width = 0.8 / max(1, len([stage for stage in stages if stage != "image"]))
    for place, level in enumerate(groups):
        shown = ["image"] if level is None else [stage for stage in stages if stage != "image"]
        for n, stage in enumerate(shown):
            found = [line for line in lines if (line.row.stage, line.row.text_level) == (stage, level)]
            value = _average(found, n_targets, lambda line: line.scores.get(subset, {}).get("r2"))
            if value is None:
                continue
            at = place + (n - (len(shown) - 1) / 2) * width
            mean, sd = value
            panel.bar(
                at,
                max(mean, 0.0),
                0.92 * width,
                yerr=sd,
                color=SERIES[STAGES.index(stage)],
                hatch=_HATCHES[stage],
                edgecolor="white",
                linewidth=0.5,
                error_kw={"elinewidth": 0.9, "capsize": 2, "ecolor": "#1a1a1a"},
                label=stage,
            )
            known = [
                p.r2[subset] for line in found if (p := published_for(line.target, stage, level)) and subset in p.r2
            ]
            if len(known) == n_targets:
                panel.plot(
                    at, fmean(known), marker="D", markersize=5, markerfacecolor="white", markeredgecolor="#1a1a1a",
                    linestyle="none", zorder=5, label="published",
                )  # fmt: skip
    baseline = _average(
        [line for line in lines if line.row.stage == "baseline-magpie"],
        n_targets,
        lambda line: line.scores.get(subset, {}).get("r2"),
    )
    if baseline is not None:
        panel.axhline(baseline[0], color="#1a1a1a", linewidth=1.0, linestyle="--", label="composition baseline")
    panel.set_xticks(range(len(groups)), ["no text" if level is None else level for level in groups])
    panel.set(xlim=(-0.6, len(groups) - 0.4), ylim=(0.0, 1.0))
    panel.grid(axis="y", color="#dddddd", linewidth=0.5)
    panel.set_axisbelow(True)


def _average(
    lines: Sequence[Line], n_targets: int, score: Callable[[Line], Stat | None]
) -> tuple[float, float | None] | None:
    """Mean over the targets, where every one of them has a score; the deviation of a single target alone."""
    found = [stat for line in lines if (stat := score(line)) is not None]
    if len(found) != n_targets:
        return None
    return fmean(stat.mean for stat in found), found[0].sd if n_targets == 1 else None
