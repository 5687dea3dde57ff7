"""Reproduction of the paper: its experiments on leakage-free splits, and an ablation of its images."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from ecdreg.notes import Notes
from registry.jobs.progress import Progress, Silent
from registry.properties import TARGETS, property_named

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection
    from train.paper.matrix import Plan
    from train.paper.reproduction import Reproduction

__all__ = ["ABLATION", "SPLIT", "ReproductionResult", "plan_reproduction", "reproduce_ablation", "reproduce_paper"]

SPLIT = "paper-{target}-{seed}"
"""Names of the published splits, as :data:`train.paper.matrix.PAPER_SPLIT`."""

ABLATION = (
    "imported",
    "paper",
    "paper-total",
    "paper-deformation",
    "metric",
    "metric-111",
    "paper-fourier",
    "metric-fourier",
)
"""Image recipes that the ablation compares, where the registry has their images."""

_log = logging.getLogger("ecdreg")


@dataclass(frozen=True)
class ReproductionResult:
    """Tables of a reproduction."""

    title: str
    made: Reproduction
    """Lines of the tables, and the outcome of each experiment."""
    seconds: float
    """Wall time [s]."""
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    """Recipes and text levels that are left out, because members of the splits lack them."""

    def to_dict(self) -> dict[str, Any]:
        """Every number, and the failed experiments, as the command line prints them with ``--json``."""
        from ecdreg.reproduction.report import flat_rows

        return {
            "rows": flat_rows(self.made.lines),
            "failed": [{"experiment": job.label, "error": error} for job, error in self.made.failed],
        }


def plan_reproduction(
    *,
    targets: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    split: str = SPLIT,
    recipes: Sequence[str] = ("metric",),
    text_levels: Sequence[str] | None = None,
    stages: Sequence[str] | None = None,
    finetune: bool = False,
    max_epochs: int | None = None,
    clip: str | None = None,
    image_backbone: str | None = None,
    text_backbone: str | None = None,
) -> Plan:
    """Plan the experiments of a reproduction.

    Parameters
    ----------
    targets
        Properties; None: the three of the paper.
    seeds
        Seeds of the runs and of their splits; None: the published ones of each target.
    split
        Names of the splits; ``{target}`` and ``{seed}`` are filled in.
    recipes
        Image recipes.
    text_levels
        Text levels; None: all.
    stages
        ``image``, ``text``, ``image+text`` and ``clip``; None: all.
    finetune
        Whether the backbones are fine-tuned in a second phase.
    max_epochs
        Epochs of each phase at most; None: the default.
    clip
        CLIP of the stage ``clip``, a folder or a hub id; None: the dual encoder.
    image_backbone, text_backbone
        Backbones; None: the defaults.

    Raises
    ------
    UnknownNameError
        If there is no such property.
    ConfigurationError
        If a stage, a text level or the name of the splits cannot be used.
    """
    from train.paper.matrix import Plan

    chosen = tuple(dict.fromkeys(targets or TARGETS))
    for name in chosen:
        property_named(name)
    plan = Plan(
        targets=chosen,
        seeds=None if seeds is None else tuple(dict.fromkeys(seeds)),
        split=split,
        recipes=tuple(dict.fromkeys(recipes)),
        finetune=finetune,
        max_epochs=max_epochs,
        clip=clip,
        image_backbone=image_backbone,
        text_backbone=text_backbone,
    )
    if text_levels:
        plan = replace(plan, text_levels=tuple(dict.fromkeys(text_levels)))
    return replace(plan, stages=tuple(dict.fromkeys(stages))) if stages else plan


def reproduce_paper(
    registry: RegistryConnection,
    *,
    make_splits: bool = False,
    iqr: float | None = 1.5,
    reference_models: Sequence[str] = (),
    jobs: int = 1,
    scheduler: str | None = None,
    show: bool = False,
    output: Path | None = None,
    command: str = "Registry.reproduce_paper",
    progress: Progress | None = None,
    **plan: Any,
) -> ReproductionResult:
    """Train the paper's experiments on leakage-free splits, and compare them with the published numbers.

    Finished experiments are not repeated, so that the same call continues an interrupted reproduction.

    Parameters
    ----------
    registry
        An open registry; every experiment is a model of it.
    make_splits
        Make missing splits by the paper's rule: 15 % held out, 5 folds.
    iqr
        Factor of the fences on the extremes of slices in splits that are made; None excludes no outlier.
    reference_models
        Reference models that are scored on the splits first.
    jobs
        Processes that train at once.
    scheduler
        Address of a Dask scheduler that trains instead.
    show
        Train nothing; read the finished experiments.
    output
        File for the tables, which ends in ``.html`` or ``.md``; None: no file.
    command
        Name of the call, for the page.
    progress
        Receives experiments and notes.
    **plan
        Arguments of :func:`plan_reproduction`, as ``targets=["k_vrh"]``.

    Raises
    ------
    ConfigurationError, UnknownNameError
        If an argument cannot be used, or the file cannot be written.
    NotFoundError, SplitError
        As :func:`train.paper.reproduction.ensure_splits` and :func:`train.paper.reproduction.leave_out_missing`.
    """
    return _reproduce(
        registry,
        plan_reproduction(**plan),
        "The paper, reproduced",
        _Run(
            make_splits=make_splits,
            iqr=iqr,
            reference_models=reference_models,
            jobs=jobs,
            scheduler=scheduler,
            show=show,
            output=output,
            command=command,
            progress=progress or Silent(),
        ),
    )


def reproduce_ablation(
    registry: RegistryConnection,
    *,
    recipes: Sequence[str] = ABLATION,
    text_levels: Sequence[str] | None = None,
    make_splits: bool = False,
    iqr: float | None = None,
    jobs: int = 1,
    scheduler: str | None = None,
    show: bool = False,
    output: Path | None = None,
    command: str = "Registry.reproduce_ablation",
    progress: Progress | None = None,
    **plan: Any,
) -> ReproductionResult:
    """Train the image stage on other images of the same crystals: density kinds, planes, Fourier transforms.

    Parameters
    ----------
    registry
        An open registry; every experiment is a model of it.
    recipes
        Image recipes; those that a member of the splits lacks are left out, with a warning.
    text_levels
        Text levels of stacks on those images; None: no stacks.
    make_splits, iqr, jobs, scheduler, show, output, command, progress
        As of :func:`reproduce_paper`.
    **plan
        Other arguments of :func:`plan_reproduction`.

    Raises
    ------
    ConfigurationError, UnknownNameError, NotFoundError, SplitError
        As :func:`reproduce_paper`.
    """
    stages = ("image", "text", "image+text") if text_levels else ("image",)
    return _reproduce(
        registry,
        plan_reproduction(recipes=recipes, text_levels=text_levels, stages=stages, **plan),
        "Ablation of the images: density kinds, planes, Fourier transforms",
        _Run(
            make_splits=make_splits,
            iqr=iqr,
            reference_models=(),
            jobs=jobs,
            scheduler=scheduler,
            show=show,
            output=output,
            command=command,
            progress=progress or Silent(),
        ),
    )


@dataclass(frozen=True)
class _Run:
    """Arguments that all reproductions share; see :func:`reproduce_paper`."""

    make_splits: bool
    iqr: float | None
    reference_models: Sequence[str]
    jobs: int
    scheduler: str | None
    show: bool
    output: Path | None
    command: str
    progress: Progress


def _reproduce(registry: RegistryConnection, plan: Plan, title: str, run: _Run) -> ReproductionResult:
    from ecdreg.reproduction.report import check_reproduction_path, write_reproduction
    from train.paper.reproduction import ensure_splits, finished, leave_out_missing, reproduce

    if run.output is not None:
        check_reproduction_path(run.output)
    began = time.perf_counter()
    remarks = Notes(run.progress)
    warnings: tuple[str, ...] = ()
    if run.show:
        with Session(registry.engine) as session:
            made = finished(session, plan)
        remarks.add(f"{len(made.jobs) - len(made.failed)} of {len(made.jobs)} experiments are finished")
        made = replace(made, outcomes=tuple(outcome for outcome in made.outcomes if outcome.error is None))
    else:
        for line in ensure_splits(registry.engine, plan, make=run.make_splits, iqr=run.iqr):
            remarks.add(line)
        with Session(registry.engine) as session:
            plan, missing = leave_out_missing(session, plan)
        warnings = tuple(str(one) for one in missing)
        for line in warnings:  # before the work that they are about, too
            remarks.add(line)
        _score_reference_models(registry, plan, run.reference_models, remarks, run.progress)
        _log.info("reproducing %s", ", ".join(plan.targets))
        made = reproduce(
            registry.engine,
            registry.settings,
            plan,
            workers=run.jobs,
            scheduler=run.scheduler,
            progress=run.progress,
        )
    seconds = time.perf_counter() - began
    if run.output is not None:
        write_reproduction(made, run.output, title=title, command=run.command, seconds=seconds)
    return ReproductionResult(title, made, seconds, remarks.lines, warnings)


def _score_reference_models(
    registry: RegistryConnection, plan: Plan, names: Sequence[str], remarks: Notes, progress: Progress
) -> None:
    from train.paper.reference_models import REFERENCE_MODELS, run_reference_model

    for name in names:
        for target in plan.targets:
            if target not in REFERENCE_MODELS[name].targets:
                continue
            for split, _ in plan.runs(target):
                result = run_reference_model(registry.engine, name, target=target, split=split, progress=progress)
                if result.missing:
                    remarks.add(
                        f"{name} cannot read {len(result.missing)} crystals of {split}: {result.missing[0]}, ..."
                    )
