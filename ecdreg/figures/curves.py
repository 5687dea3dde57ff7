"""Learning curves: losses by epoch, over the folds of each model (figure 6 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from ecdreg.figures.style import INK, SERIES, style
from ecdreg.models.scores import PHASES, is_reference_model
from registry.errors import NotFoundError
from registry.model_store import ResolvedModel, resolve_model
from registry.models import Epoch, Experiment, ModelVersion

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ecdreg.connection import RegistryConnection
    from train.config.config import TrainConfig

__all__ = ["Curve", "curves_figure", "draw_curves", "read_curves"]


@dataclass(frozen=True)
class Curve:
    """Losses of one fold in one phase; mean squared errors of the standardised target."""

    model: str
    phase: str
    fold: int
    train: NDArray[np.float64]
    """(epochs,)"""
    stop: NDArray[np.float64]
    """(epochs,), on the early-stopping rows"""
    best_epoch: int | None


def curves_figure(registry: RegistryConnection, models: Sequence[str]) -> Figure:
    """Draw the learning curves of models: every fold and their mean.

    Parameters
    ----------
    registry
        An open registry; only read.
    models
        ``name[:target][@alias or @version]`` of each; without a target, those of every target.

    Raises
    ------
    NotFoundError
        If there is no such model, or none of them has epochs.
    """
    with Session(registry.engine) as session:
        curves = read_curves(session, models)
    return draw_curves(curves)


def read_curves(session: Session, models: Sequence[str]) -> list[Curve]:
    """Read the learning curves of the folds of models.

    Parameters
    ----------
    session
        Only read.
    models
        ``name[:target][@alias or @version]`` of each; without a target, those of every target.

    Raises
    ------
    NotFoundError
        If none of them has epochs; the message gives the reason, and the towers of a stack that have epochs.
    """
    curves = []
    resolved = [one for model in models for one in resolve_model(session, model)]
    for found in resolved:
        versions = session.scalars(
            select(ModelVersion)
            .where(ModelVersion.experiment_id == found.experiment.id, ModelVersion.fold.is_not(None))
            .order_by(ModelVersion.fold)
        ).all()
        for version in sorted(versions, key=lambda v: PHASES.index(v.phase)):
            epochs = session.scalars(
                select(Epoch).where(Epoch.model_version_id == version.id).order_by(Epoch.epoch)
            ).all()
            if epochs:
                stop = [np.nan if e.stop_loss is None else e.stop_loss for e in epochs]
                curves.append(
                    Curve(
                        found.name,
                        version.phase,
                        version.fold or 0,
                        np.array([e.train_loss for e in epochs]),
                        np.array(stop, dtype=np.float64),
                        version.best_epoch,
                    )
                )
    if not curves:
        raise NotFoundError("; ".join(dict.fromkeys(_why_none(session, one) for one in resolved)))
    return curves


@style()
def draw_curves(curves: Sequence[Curve]) -> Figure:
    """Draw curves: a column for each model, a row for each phase; thin lines are folds, thick lines their mean.

    Parameters
    ----------
    curves
        At least one.
    """
    models = list(dict.fromkeys(curve.model for curve in curves))
    phases = [phase for phase in PHASES if any(curve.phase == phase for curve in curves)]
    figure = Figure(
        label="Learning curves",
        figsize=(max(4.6, 0.8 + 3.5 * len(models)), 0.9 + 2.6 * len(phases)),
        layout="constrained",
    )
    panels = figure.subplots(len(phases), len(models), squeeze=False, sharey="row")
    for row, phase in enumerate(phases):
        for column, model in enumerate(models):
            panel = panels[row, column]
            chosen = [curve for curve in curves if (curve.model, curve.phase) == (model, phase)]
            if not chosen:
                panel.set_axis_off()
                continue
            _panel(panel, chosen)
            panel.set_title(f"{model}\n{phase}" if row == 0 else phase)
        first = next(panel for panel in panels[row] if panel.lines)
        first.set_ylabel("loss (MSE, standardised)")
        first.tick_params(labelleft=True)
    for column in range(len(models)):
        next(panel for panel in panels[::-1, column] if panel.lines).set_xlabel("epoch")
    drawn = next(panel for panel in panels.flat if panel.lines)
    handles, labels = drawn.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _why_none(session: Session, model: ResolvedModel) -> str:
    """Explain why a model has no learning curve, and name the towers that have one."""
    experiment = model.experiment
    if is_reference_model(experiment):
        return f"{model.name} was trained elsewhere, without a learning curve"
    from train.config.schema import StackConfig, TowerConfig
    from train.config.stored import config_of

    config = config_of(experiment)
    if config.is_network:
        return f"{model.name} has no epochs in the registry; train it again with --again"
    what = "a baseline"
    if isinstance(config, StackConfig):
        what = f"joined by the regressor {config.join.name}"
    elif isinstance(config, TowerConfig):
        what = f"the regressor {config.head.name}"
    why = f"{model.name} is {what}, which is fitted in one step and has no learning curve"
    if not config.is_stack:
        return why
    networks = [_with_epochs(session, experiment, config.tower_config(tower)) for tower in config.modalities]
    if names := [name for name in networks if name is not None]:
        return f"{why}; those of its network towers: ecdreg plot curves {' '.join(names)}"
    return f"{why}, nor has any of its towers"


def _with_epochs(session: Session, stack: Experiment, tower: TrainConfig) -> str | None:
    """The newest model that was trained as a tower of a stack, if it has epochs."""
    found = session.scalars(
        select(Experiment)
        .where(
            Experiment.kind == tower.kind,
            Experiment.target == stack.target,
            Experiment.split_id == stack.split_id,
            Experiment.seed == stack.seed,
            Experiment.status == "finished",
            Experiment.model_versions.any(exists().where(Epoch.model_version_id == ModelVersion.id)),
        )
        .order_by(Experiment.created_at.desc(), Experiment.id.desc())
    )
    from train.config.stored import config_of

    for one in found:
        if config_of(one) == tower:
            return f"{one.name}:{one.target}@{one.version}"
    return None


def _panel(panel: Axes, curves: Sequence[Curve]) -> None:
    for name, colour, dash, label in (
        ("train", SERIES[0], "-", "training rows"),
        ("stop", SERIES[5], "--", "early-stopping rows"),
    ):
        longest = max(len(getattr(curve, name)) for curve in curves)
        losses = np.full((len(curves), longest), np.nan)
        for row, curve in enumerate(curves):
            values = getattr(curve, name)
            losses[row, : len(values)] = values
            panel.plot(range(1, len(values) + 1), values, color=colour, alpha=0.3, linewidth=0.7, linestyle=dash)
        # The mean ends with the shortest fold: beyond it, the mean would jump where a fold ends.
        shared = min(len(getattr(curve, name)) for curve in curves)
        mean = losses[:, :shared].mean(axis=0)
        if np.isfinite(mean).any():
            panel.plot(range(1, shared + 1), mean, color=colour, linewidth=1.8, linestyle=dash, label=label)
    kept = [(c.best_epoch, c.stop[c.best_epoch - 1]) for c in curves if c.best_epoch and len(c.stop) >= c.best_epoch]
    if kept:
        epochs, losses_kept = zip(*kept, strict=True)
        panel.plot(
            epochs,
            losses_kept,
            linestyle="none",
            marker="v",
            color=INK,
            markersize=5,
            label="kept epoch of a fold",
        )
    panel.set_yscale("log")
    panel.yaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.grid(color="#dddddd", linewidth=0.5)
    panel.set_axisbelow(True)
