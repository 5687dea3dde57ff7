"""Matrix of the paper, target x input x split, as a list of training jobs with dependencies.

A job trains one model on one split with one seed. Stacks depend on the jobs of their towers, so that no tower is
trained twice; all other jobs are independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from registry.errors import ConfigurationError
from registry.properties import TARGETS
from train.config.config import TrainConfig
from train.modalities.features import TOKEN_LIMITS
from train.models.options import ModelOptions, build_config

__all__ = ["PAPER_SEEDS", "PAPER_SPLIT", "STAGES", "Job", "Plan", "TableRow", "enumerate_jobs"]

PAPER_SEEDS: Mapping[str, tuple[int, ...]] = {
    "formation_energy_per_atom": (42, 52, 62),
    "efermi": (4200, 5200, 6200),
    "k_vrh": (420, 520, 620),
}
"""Seeds of the published runs and splits by target (Massa et al., arXiv 2401.09301)."""

PAPER_SPLIT = "paper-{target}-{seed}"
"""Template of the names of the published splits."""

STAGES = ("image", "text", "image+text", "clip")
"""Stages of training, named as in the paper."""

BASELINES = ("baseline-mean", "baseline-magpie")
"""Kinds of the baselines."""


@dataclass(frozen=True)
class TableRow:
    """Identity of a row of the table within its target."""

    stage: str
    """One of :data:`STAGES`, or the kind of a baseline."""
    recipe: str | None
    """Recipe of the images; None for models without images."""
    text_level: str | None
    """Level of the texts; None for models without texts."""


@dataclass(frozen=True)
class Job:
    """One experiment of the matrix."""

    row: TableRow
    config: TrainConfig
    split: str
    seed: int
    needs: tuple[int, ...] = ()
    """Indices of the jobs of its towers in the list of jobs."""

    @property
    def label(self) -> str:
        """Description of the job on one line."""
        parts = [self.row.stage, self.config.target, self.row.recipe, self.row.text_level, self.split]
        return " · ".join(part for part in parts if part) + f" · seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """Scope of a reproduction."""

    targets: tuple[str, ...] = TARGETS
    seeds: tuple[int, ...] | None = None
    """Seeds for each target; None for those of the published runs."""
    split: str = PAPER_SPLIT
    """Template of the names of the splits, with ``{target}`` and ``{seed}``."""
    recipes: tuple[str, ...] = ("metric",)
    text_levels: tuple[str, ...] = tuple(TOKEN_LIMITS)
    stages: tuple[str, ...] = STAGES
    baselines: bool = True
    finetune: bool = False
    """Whether to fine-tune the backbones; otherwise towers have the readout phase only."""
    max_epochs: int | None = None
    """Largest number of epochs of each phase; None for the default."""
    clip: str | None = None
    """The CLIP, as a folder or a hub id; None for the offline dual encoder instead."""
    image_backbone: str | None = None
    """Image backbone; None for the default."""
    image_size: int | None = None
    """Pixels along each side of the image backbone's input; None for its default."""
    text_backbone: str | None = None
    """Text backbone; None for the default."""

    def __post_init__(self) -> None:
        for name, given, known in (
            ("stages", self.stages, STAGES),
            ("text_levels", self.text_levels, tuple(TOKEN_LIMITS)),
        ):
            if unknown := [value for value in given if value not in known]:
                raise ConfigurationError(f"{name} holds {unknown[0]!r}; choose from {', '.join(known)}")
        if self.seeds is None and (unknown := [target for target in self.targets if target not in PAPER_SEEDS]):
            raise ConfigurationError(f"no published seeds for {unknown[0]!r}; give seeds")
        try:
            self.split_name(self.targets[0] if self.targets else "", 0)
        except (KeyError, IndexError, ValueError):
            raise ConfigurationError(
                f"split is {self.split!r}; a template may contain {{target}} and {{seed}}, as {PAPER_SPLIT!r}"
            ) from None

    def runs(self, target: str) -> list[tuple[str, int]]:
        """Splits of a target, each with the seed of its run."""
        seeds = PAPER_SEEDS[target] if self.seeds is None else self.seeds
        return [(self.split_name(target, seed), seed) for seed in dict.fromkeys(seeds)]

    def split_name(self, target: str, seed: int) -> str:
        """Name of the split of a target and a seed."""
        return self.split.format(target=target, seed=seed)


def enumerate_jobs(plan: Plan) -> list[Job]:
    """List the jobs of a plan: the first run of all targets, then the second, and so on.

    Parameters
    ----------
    plan
        Scope of the reproduction.

    Returns
    -------
    list of Job
        Jobs in an order that respects their dependencies.

    Raises
    ------
    ConfigurationError
        If an option of the plan is invalid.
    """
    jobs: list[Job] = []
    runs = {target: plan.runs(target) for target in plan.targets}
    for place in range(max((len(found) for found in runs.values()), default=0)):
        for target, found in runs.items():
            if place < len(found):
                _one_run(plan, target, *found[place], jobs)
    return jobs


def _one_run(plan: Plan, target: str, split: str, seed: int, jobs: list[Job]) -> None:
    places: dict[TableRow, int] = {}

    def add(row: TableRow, kind: str, needs: Sequence[TableRow] = ()) -> None:
        places[row] = len(jobs)
        needed = tuple(places[need] for need in needs if need in places)
        jobs.append(Job(row, _config(plan, kind, target, row), split, seed, needed))

    if plan.baselines:
        for kind in BASELINES:
            add(TableRow(kind, None, None), kind)
    # Towers of a stack are trained with it, whether or not they have rows of their own.
    if {"image", "image+text"} & set(plan.stages):
        for recipe in plan.recipes:
            add(TableRow("image", recipe, None), "image")
    if {"text", "image+text"} & set(plan.stages):
        for text_level in plan.text_levels:
            add(TableRow("text", None, text_level), "text")
    for recipe in plan.recipes:
        for text_level in plan.text_levels:
            if "image+text" in plan.stages:
                towers = (TableRow("image", recipe, None), TableRow("text", None, text_level))
                add(TableRow("image+text", recipe, text_level), "stacked", towers)
            if "clip" in plan.stages:
                # A CLIP is large and must be available; the dual encoder consists of the two default backbones.
                add(TableRow("clip", recipe, text_level), "clip" if plan.clip else "dual-encoder")


def _config(plan: Plan, kind: str, target: str, row: TableRow) -> TrainConfig:
    """Configuration of a row: the published one with the options of the plan."""
    images, texts = kind in ("image", "stacked", "dual-encoder"), kind in ("text", "stacked", "dual-encoder")
    options = ModelOptions(
        recipe=row.recipe,
        text_level=row.text_level,
        image_backbone=plan.image_backbone if images else None,
        image_size=plan.image_size if images else None,
        text_backbone=plan.text_backbone if texts else None,
        clip=plan.clip if kind == "clip" else None,
        finetune=plan.finetune,
        max_epochs=plan.max_epochs,
        dense=True,
    )
    return build_config(kind, target, options)
