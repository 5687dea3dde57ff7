"""Scores by stage and text level, with the published scores and the composition baseline (figure 2 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from sqlalchemy.orm import Session

from ecdreg.figures.style import INK, SERIES, style
from registry.errors import NotFoundError
from train.paper.matrix import STAGES
from train.paper.published import published_for
from train.paper.reproduction import finished

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ecdreg.connection import RegistryConnection
    from train.paper.matrix import Plan
    from train.paper.reproduction import Line, Stat

__all__ = ["draw_scores", "scores_figure"]

_HATCHES = {"image": "", "text": "///", "image+text": "...", "clip": "xxx"}


def scores_figure(registry: RegistryConnection, plan: Plan) -> Figure:
    """Draw the scores of the finished experiments of a plan.

    Parameters
    ----------
    registry
        An open registry; only read.
    plan
        Targets, splits, recipe and text levels; :func:`draw_scores` takes lines of a single recipe.

    Raises
    ------
    NotFoundError
        If none of its experiments but the baselines is finished.
    """
    with Session(registry.engine) as session:
        found = finished(session, plan)
    if not any(line.row.recipe or line.row.text_level for line in found.lines):
        raise NotFoundError(
            f"no finished experiment on the splits {plan.split!r}; `ecdreg reproduce paper` trains them"
        )
    return draw_scores(found.lines)


@style()
def draw_scores(lines: Sequence[Line]) -> Figure:
    """Draw R² of the folds and of the holdout, a column for each target and one for their average.

    Parameters
    ----------
    lines
        Lines of one recipe; the last phase of each model is drawn.
    """
    last = [line for line in lines if line.last]
    targets = list(dict.fromkeys(line.target for line in last))
    columns: list[str | None] = [*targets, *([None] if len(targets) > 1 else [])]
    figure = Figure(
        label="Scores by stage and text level", figsize=(1.2 + 3.3 * len(columns), 7.2), layout="constrained"
    )
    panels = figure.subplots(2, len(columns), squeeze=False, sharey=True)
    for row, (subset, title) in enumerate((("val", "left-out folds"), ("test", "holdout"))):
        for column, target in enumerate(columns):
            chosen = [line for line in last if target in (None, line.target)]
            panel = panels[row, column]
            _panel(panel, chosen, subset, n_targets=1 if target else len(targets))
            letter = "abcdefgh"[column]
            panel.set_title(f"{letter}  {target or 'average over targets'}" if row == 0 else "")
        panels[row, 0].set_ylabel(f"R², {title}")
    # The panels may have different stages: the legend has the stages of all panels.
    entries = [panel.get_legend_handles_labels() for panel in panels.flat]
    marks = {label: handle for handles, labels in entries for handle, label in zip(handles, labels, strict=True)}
    names = [*(stage for stage in STAGES if stage in marks), *(name for name in marks if name not in STAGES)]
    figure.legend([marks[name] for name in names], names, loc="outside lower center", ncols=len(names))
    return figure


def _panel(panel: Axes, lines: Sequence[Line], subset: str, *, n_targets: int) -> None:
    stages = [stage for stage in STAGES if any(line.row.stage == stage for line in lines)]
    text_levels = list(dict.fromkeys(line.row.text_level for line in lines if line.row.text_level is not None))
    groups: list[str | None] = [*([None] if "image" in stages else []), *text_levels]
    width = 0.8 / max(1, len([stage for stage in stages if stage != "image"]))
    for position, text_level in enumerate(groups):
        drawn = ["image"] if text_level is None else [stage for stage in stages if stage != "image"]
        for n, stage in enumerate(drawn):
            found = [line for line in lines if (line.row.stage, line.row.text_level) == (stage, text_level)]
            value = _average(found, n_targets, lambda line: line.scores.get(subset, {}).get("r2"))
            if value is None:
                continue
            at = position + (n - (len(drawn) - 1) / 2) * width
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
                error_kw={"elinewidth": 0.9, "capsize": 2, "ecolor": INK},
                label=stage,
            )
            published = [
                p.r2[subset]
                for line in found
                if (p := published_for(line.target, stage, text_level)) and subset in p.r2
            ]
            if len(published) == n_targets:
                panel.plot(
                    at, fmean(published), marker="D", markersize=5, markerfacecolor="white", markeredgecolor=INK,
                    linestyle="none", zorder=5, label="published",
                )  # fmt: skip
    baseline = _average(
        [line for line in lines if line.row.stage == "baseline-magpie"],
        n_targets,
        lambda line: line.scores.get(subset, {}).get("r2"),
    )
    if baseline is not None:
        panel.axhline(baseline[0], color=INK, linewidth=1.0, linestyle="--", label="composition baseline")
    panel.set_xticks(range(len(groups)), ["no text" if text_level is None else text_level for text_level in groups])
    panel.set(xlim=(-0.6, len(groups) - 0.4), ylim=(0.0, 1.0))
    panel.grid(axis="y", color="#dddddd", linewidth=0.5)
    panel.set_axisbelow(True)


def _average(
    lines: Sequence[Line], n_targets: int, score: Callable[[Line], Stat | None]
) -> tuple[float, float | None] | None:
    """Mean over the targets if all of them have a score, with the standard deviation of a single target."""
    found = [stat for line in lines if (stat := score(line)) is not None]
    if len(found) != n_targets:
        return None
    return fmean(stat.mean for stat in found), found[0].sd if n_targets == 1 else None
