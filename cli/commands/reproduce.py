"""``ecdreg reproduce``: the paper's tables, leak-free, and what its pictures are worth against others."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.options.common import (
    JsonOption,
    TargetOption,
    command_group,
    open_engine,
)
from cli.options.common import settings as environment

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from registry.jobs.progress import Progress
    from train.paper.matrix import Plan
    from train.paper.reproduction import Reproduction

__all__ = ["LevelsOption", "SeedsOption", "SplitTemplateOption", "group", "plan_of"]

SeedsOption = Annotated[
    list[int] | None,
    typer.Option("--seed", help="Seed of a run, and of its split (repeatable); by default the published ones."),
]
SplitTemplateOption = Annotated[
    str, typer.Option("--split", metavar="TEMPLATE", help="Names of the splits; {target} and {seed} are filled in.")
]
LevelsOption = Annotated[
    list[str] | None,
    typer.Option("--text-level", metavar="LEVEL", help="formula, keywords or all (repeatable); all three by default."),
]
RecipesOption = Annotated[
    list[str] | None, typer.Option("--recipe", metavar="NAME", help="Image recipe (repeatable).", show_default=False)
]
StagesOption = Annotated[
    list[str] | None,
    typer.Option("--stage", metavar="STAGE", help="image, text, image+text or clip (repeatable); all by default."),
]
JobsOption = Annotated[int, typer.Option("--jobs", min=1, help="Processes of this machine that train at once.")]
SchedulerOption = Annotated[
    str | None, typer.Option("--scheduler", metavar="URL", help="Dask scheduler that trains instead: tcp://host:8786.")
]
MakeSplitsOption = Annotated[
    bool,
    typer.Option("--make-splits", help="Make missing splits by the paper's rule: 15 % held out, 5 folds."),
]
IqrOption = Annotated[
    float,
    typer.Option(
        "--iqr", min=0.0, help="Where a split is made: leave out slices this many IQRs off the quartiles; 0 keeps all."
    ),
]
FinetuneOption = Annotated[
    bool, typer.Option("--finetune/--no-finetune", help="The second phase of the towers too; slow without a GPU.")
]
MaxEpochsOption = Annotated[
    int | None, typer.Option("--max-epochs", min=1, help="Epochs of each phase at most; 700 by default.")
]
ImageBackboneOption = Annotated[
    str | None, typer.Option("--image-backbone", metavar="NAME", help="Image backbone: a name, a folder or a hub id.")
]
TextBackboneOption = Annotated[
    str | None, typer.Option("--text-backbone", metavar="NAME", help="Text backbone: a name, a folder or a hub id.")
]
ClipOption = Annotated[
    str | None,
    typer.Option("--clip", metavar="NAME", help="CLIP of the stage clip, a folder or a hub id; else a dual encoder."),
]
PeersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--peer",
        metavar="NAME",
        help="Score a published model of others first, cgcnn or chgnet (repeatable): see `ecdreg reference`.",
    ),
]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print every number as CSV instead of tables.")]
ShowOption = Annotated[bool, typer.Option("--show", help="Train nothing: show what is finished by now.")]
PhasesOption = Annotated[bool, typer.Option("--phases", help="Show every phase, not only the last of each model.")]
OutOption = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the tables to a .html or .md file too.")
]

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
"""Pictures that ``ecdreg reproduce ablation`` compares, where the registry has them."""

group = command_group("Run the paper's experiments again, without their leaks, beside the published numbers.")


@group.command("paper")
def paper(
    target: TargetOption = None,
    stage: StagesOption = None,
    text_level: LevelsOption = None,
    recipe: RecipesOption = None,
    seed: SeedsOption = None,
    split: SplitTemplateOption = "paper-{target}-{seed}",
    make_splits: MakeSplitsOption = False,
    iqr: IqrOption = 1.5,
    finetune: FinetuneOption = False,
    image_backbone: ImageBackboneOption = None,
    text_backbone: TextBackboneOption = None,
    clip: ClipOption = None,
    max_epochs: MaxEpochsOption = None,
    peer: PeersOption = None,
    jobs: JobsOption = 1,
    scheduler: SchedulerOption = None,
    show: ShowOption = False,
    phases: PhasesOption = False,
    out: OutOption = None,
    csv: CsvOption = False,
    json: JsonOption = False,
) -> None:
    """Figure 2 and the tables of the paper: every stage and text level, three runs of five folds each.

    Each experiment is a model of its own in the registry; what is finished is not repeated, so that the same
    command goes on after a break and shows the table at once when all is done. The slices are those of the
    recipe metric by default; `--recipe imported` takes the published pictures, where they were ingested. Peers
    that were scored on the splits stand below, with a mark: they were trained elsewhere.

    \b
    Examples:
      ecdreg reproduce paper --jobs 2 -o paper.html
      ecdreg reproduce paper --target k_vrh --seed 420 --text-level keywords
      ecdreg reproduce paper --seed 0 --split 'mine-{target}' --make-splits --csv
      ecdreg reproduce paper --scheduler tcp://10.0.0.5:8786 --finetune
    """
    plan = plan_of(
        target,
        seed,
        split,
        recipe or ["metric"],
        text_level,
        stages=stage,
        finetune=finetune,
        max_epochs=max_epochs,
        clip=clip,
        image_backbone=image_backbone,
        text_backbone=text_backbone,
    )
    _reproduce(
        plan,
        "The paper, reproduced",
        make_splits,
        iqr,
        jobs,
        scheduler,
        peers=peer or (),
        show=show,
        phases=phases,
        out=out,
        csv=csv,
        json=json,
    )


@group.command("ablation")
def ablation(
    target: TargetOption = None,
    recipe: RecipesOption = None,
    text_level: LevelsOption = None,
    seed: SeedsOption = None,
    split: SplitTemplateOption = "paper-{target}-{seed}",
    make_splits: MakeSplitsOption = False,
    iqr: IqrOption = 0.0,
    finetune: FinetuneOption = False,
    image_backbone: ImageBackboneOption = None,
    max_epochs: MaxEpochsOption = None,
    jobs: JobsOption = 1,
    scheduler: SchedulerOption = None,
    show: ShowOption = False,
    phases: PhasesOption = False,
    out: OutOption = None,
    csv: CsvOption = False,
    json: JsonOption = False,
) -> None:
    """The image stage on other pictures of the same crystals: density kinds, planes, Fourier transforms.

    Spin, total and deformation density in the published slice, the published pictures themselves (imported),
    metric slices with several channels, and Fourier magnitudes. A picture that a member of the splits lacks is
    left out, and a line says what would make it. With --text-level the stacks on those pictures are trained too.

    \b
    Examples:
      ecdreg reproduce ablation --jobs 2
      ecdreg reproduce ablation --recipe metric --recipe metric-fourier --target k_vrh -o fourier.md
      ecdreg reproduce ablation --text-level keywords --seed 420 --target k_vrh
    """
    stages = ("image", "text", "image+text") if text_level else ("image",)
    plan = plan_of(
        target,
        seed,
        split,
        recipe or list(ABLATION),
        text_level,
        stages=stages,
        finetune=finetune,
        max_epochs=max_epochs,
        image_backbone=image_backbone,
    )
    title = "What the picture shows: density kinds, planes, Fourier transforms"
    _reproduce(plan, title, make_splits, iqr, jobs, scheduler, show=show, phases=phases, out=out, csv=csv, json=json)


def plan_of(
    target: list[str] | None,
    seeds: list[int] | None,
    split: str,
    recipes: list[str],
    levels: list[str] | None,
    *,
    stages: Sequence[str] | None = None,
    finetune: bool = False,
    max_epochs: int | None = None,
    clip: str | None = None,
    image_backbone: str | None = None,
    text_backbone: str | None = None,
) -> Plan:
    """The plan that options ask for; what is None has its default."""
    from registry.properties import TARGETS
    from train.config.features import TOKEN_LIMITS
    from train.paper.matrix import STAGES, Plan

    return Plan(
        targets=tuple(dict.fromkeys(target or TARGETS)),
        seeds=None if seeds is None else tuple(dict.fromkeys(seeds)),
        split=split,
        recipes=tuple(dict.fromkeys(recipes)),
        stages=tuple(dict.fromkeys(stages or STAGES)),
        finetune=finetune,
        max_epochs=max_epochs,
        clip=clip,
        image_backbone=image_backbone,
        text_backbone=text_backbone,
        text_levels=tuple(dict.fromkeys(levels or TOKEN_LIMITS)),
    )


def _reproduce(
    plan: Plan,
    title: str,
    make_splits: bool,
    iqr: float,
    jobs: int,
    scheduler: str | None,
    *,
    peers: Sequence[str] = (),
    show: bool,
    phases: bool,
    out: Path | None,
    csv: bool,
    json: bool,
) -> None:
    from sqlalchemy.orm import Session

    from registry.properties import property_named
    from train.paper.reproduction import ensure_splits, finished, leave_out_missing, reproduce

    if out is not None:
        from ecdreg.report.reproduction import check_reproduction_path

        check_reproduction_path(out)
    started = time.perf_counter()
    engine = open_engine()
    for name in plan.targets:
        property_named(name)
    if show:
        with Session(engine) as session:
            made = finished(session, plan)
        output.note(f"{len(made.jobs) - len(made.failed)} of {len(made.jobs)} experiments are finished")
        made = replace(made, outcomes=tuple(outcome for outcome in made.outcomes if outcome.error is None))
        _tell(made, title, time.perf_counter() - started, phases=phases, out=out, csv=csv, json=json)
        return
    for remark in ensure_splits(engine, plan, make=make_splits, iqr=iqr or None):
        output.note(remark)
    with Session(engine) as session:
        plan, missing = leave_out_missing(session, plan)
    for one in missing:
        output.warn(str(one))
    with output.progress() as progress:
        _score_peers(engine, plan, peers, progress)
        made = reproduce(engine, environment(), plan, workers=jobs, scheduler=scheduler, progress=progress)
    _tell(made, title, time.perf_counter() - started, phases=phases, out=out, csv=csv, json=json)
    if made.failed:
        raise typer.Exit(1)


def _score_peers(engine: Engine, plan: Plan, names: Sequence[str], progress: Progress) -> None:
    if not names:
        return
    from train.paper.reference_models import REFERENCE_MODELS, run_reference_model

    for name in names:
        for target in plan.targets:
            if target not in REFERENCE_MODELS[name].targets:
                continue
            for split, _ in plan.runs(target):
                missing = run_reference_model(engine, name, target=target, split=split, progress=progress).missing
                if missing:
                    output.note(f"{name} cannot read {len(missing)} crystals of {split}, {missing[0]} for one")


def _tell(
    made: Reproduction, title: str, seconds: float, *, phases: bool, out: Path | None, csv: bool, json: bool
) -> None:
    if out is not None:
        from ecdreg.report.reproduction import write_reproduction

        write_reproduction(made, out, title=title, command=_command(), seconds=seconds)
    _print(made, phases=phases, csv=csv, json=json)
    if out is not None:
        output.note(f"wrote {out}")


def _print(made: Reproduction, *, phases: bool, csv: bool, json: bool) -> None:
    from ecdreg.report import reproduction

    if json:
        output.json(
            {
                "rows": reproduction.flat_rows(made.lines),
                "failed": [{"experiment": job.label, "error": error} for job, error in made.failed],
            }
        )
        return
    if csv:
        output.csv(reproduction.flat_rows(made.lines))
        return
    for target in made.plan.targets:
        lines = [line for line in made.lines if line.target == target]
        if not lines:
            continue
        rows = reproduction.table_rows(lines, phases=phases)
        output.table(rows, reproduction.COLUMNS, title=f"{target} [{lines[0].unit}]")
        output.line()
    if folds := reproduction.fold_rows(made.lines):
        output.table(folds, reproduction.FOLD_COLUMNS, title="First fold only")
        output.line()
    for remark in reproduction.notes(made.lines):
        output.note(remark)


def _command() -> str:
    return shlex.join(["ecdreg", *sys.argv[1:]])
