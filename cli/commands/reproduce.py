"""``ecdreg reproduce``: the paper's experiments on leakage-free splits, and an ablation of its images."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import output
from cli.connections import open_registry
from cli.groups import command_group
from cli.options.arguments import JsonOption, TargetOption
from cli.options.sets import with_option_sets
from ecdreg.reproduction.paper import ABLATION, SPLIT, ReproductionResult

__all__ = ["SeedsOption", "SplitTemplateOption", "TextLevelsOption", "group"]

SeedsOption = Annotated[
    list[int] | None,
    typer.Option("--seed", help="Seed of a run, and of its split; may be repeated. The published ones by default."),
]
SplitTemplateOption = Annotated[
    str, typer.Option("--split", metavar="TEMPLATE", help="Names of the splits; {target} and {seed} are filled in.")
]
TextLevelsOption = Annotated[
    list[str] | None,
    typer.Option("--text-level", metavar="NAME", help="formula, keywords or all; may be repeated. All by default."),
]
RecipesOption = Annotated[
    list[str] | None,
    typer.Option("--recipe", metavar="NAME", help="Image recipe; may be repeated.", show_default=False),
]

group = command_group("Reproduce the paper's experiments on leakage-free splits, with the published numbers.")


@dataclass(frozen=True)
class PlanOptions:
    """Options of the experiments."""

    target: TargetOption = None
    seed: SeedsOption = None
    split: SplitTemplateOption = SPLIT
    recipe: RecipesOption = None
    text_level: TextLevelsOption = None
    make_splits: Annotated[
        bool, typer.Option("--make-splits", help="Make missing splits by the paper's rule: 15 % held out, 5 folds.")
    ] = False
    finetune: Annotated[
        bool, typer.Option("--finetune/--no-finetune", help="Train the second phase of the towers; slow without a GPU.")
    ] = False
    image_backbone: Annotated[
        str | None,
        typer.Option("--image-backbone", metavar="NAME", help="Image backbone: a name, a folder or a hub id."),
    ] = None
    max_epochs: Annotated[
        int | None, typer.Option("--max-epochs", min=1, help="Epochs of each phase at most; 700 by default.")
    ] = None


@dataclass(frozen=True)
class RunOptions:
    """Options of the run and of its output."""

    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Processes of this machine that train at once.")] = 1
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="URL", help="Dask scheduler that trains instead: tcp://host:8786."),
    ] = None
    show: Annotated[bool, typer.Option("--show", help="Train nothing: show the finished experiments.")] = False
    phases: Annotated[bool, typer.Option("--phases", help="Show every phase, not only the last of each model.")] = False
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write the tables to a .html or .md file, too."),
    ] = None
    csv: Annotated[bool, typer.Option("--csv", help="Print every number as CSV instead of tables.")] = False
    json: JsonOption = False


IqrOption = Annotated[
    float,
    typer.Option(
        "--iqr",
        min=0.0,
        help="In splits that are made: exclude slices this many IQRs outside the quartiles; 0 excludes none.",
    ),
]


@group.command()
@with_option_sets
def paper(
    plan: PlanOptions,
    run: RunOptions,
    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", metavar="STAGE", help="image, text, image+text or clip; may be repeated."),
    ] = None,
    iqr: IqrOption = 1.5,
    text_backbone: Annotated[
        str | None, typer.Option("--text-backbone", metavar="NAME", help="Text backbone: a name, a folder or a hub id.")
    ] = None,
    clip: Annotated[
        str | None,
        typer.Option("--clip", metavar="NAME", help="CLIP of the stage clip, a folder or a hub id. [dual encoder]"),
    ] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(
            "--reference-model",
            metavar="NAME",
            help="Score a reference model first, cgcnn or chgnet; may be repeated. See `ecdreg reference`.",
        ),
    ] = None,
) -> None:
    """Reproduce figure 2 and the tables of the paper: all stages and text levels, three runs of five folds each.

    Each experiment is a model of the registry. Finished experiments are not repeated, so that the same command
    continues after an interruption, and shows the table at once when all are finished. The slices are those of the
    recipe metric by default; `--recipe imported` takes the published images, where they were ingested. Reference
    models that were scored on the splits follow, with a mark: they were trained elsewhere.

    \b
    Examples:
      ecdreg reproduce paper --jobs 2 -o paper.html
      ecdreg reproduce paper --target k_vrh --seed 420 --text-level keywords
      ecdreg reproduce paper --seed 0 --split 'mine-{target}' --make-splits --csv
      ecdreg reproduce paper --scheduler tcp://10.0.0.5:8786 --finetune
    """
    with output.progress() as progress:
        result = open_registry().reproduce_paper(
            **_plan(plan),
            **_run(run),
            recipes=plan.recipe or ("metric",),
            iqr=iqr or None,
            stages=stage,
            text_levels=plan.text_level,
            text_backbone=text_backbone,
            clip=clip,
            reference_models=reference or (),
            progress=progress,
        )
    _print(result, run)


@group.command()
@with_option_sets
def ablation(plan: PlanOptions, run: RunOptions, iqr: IqrOption = 0.0) -> None:
    """Train the image stage on other images of the same crystals: density kinds, planes, Fourier transforms.

    Spin, total and deformation density in the published slice, the published images themselves (imported), metric
    slices with several channels, and Fourier magnitudes. A recipe that a member of the splits lacks is left out, with
    a warning that names the command to make it. With --text-level the stacks on those images are trained too.

    \b
    Examples:
      ecdreg reproduce ablation --jobs 2
      ecdreg reproduce ablation --recipe metric --recipe metric-fourier --target k_vrh -o fourier.md
      ecdreg reproduce ablation --text-level keywords --seed 420 --target k_vrh
    """
    with output.progress() as progress:
        result = open_registry().reproduce_ablation(
            **_plan(plan),
            **_run(run),
            recipes=plan.recipe or ABLATION,
            text_levels=plan.text_level,
            iqr=iqr or None,
            progress=progress,
        )
    _print(result, run)


def _plan(plan: PlanOptions) -> dict[str, Any]:
    return {
        "targets": plan.target,
        "seeds": plan.seed,
        "split": plan.split,
        "make_splits": plan.make_splits,
        "finetune": plan.finetune,
        "image_backbone": plan.image_backbone,
        "max_epochs": plan.max_epochs,
    }


def _run(run: RunOptions) -> dict[str, Any]:
    command = shlex.join(["ecdreg", *sys.argv[1:]])
    return {"jobs": run.jobs, "scheduler": run.scheduler, "show": run.show, "output": run.out, "command": command}


def _print(result: ReproductionResult, run: RunOptions) -> None:
    from ecdreg.reproduction import report

    for warning in result.warnings:
        output.warn(warning)
    made = result.made
    if run.json:
        output.json(result.to_dict())
    elif run.csv:
        output.csv(report.flat_rows(made.lines))
    else:
        for target in made.plan.targets:
            if lines := [line for line in made.lines if line.target == target]:
                rows = report.table_rows(lines, phases=run.phases)
                output.table(rows, report.COLUMNS, title=f"{target} [{lines[0].unit}]")
                output.line()
        if folds := report.fold_rows(made.lines):
            output.table(folds, report.FOLD_COLUMNS, title="First fold only")
            output.line()
        for line in report.notes(made.lines):
            output.note(line)
    if run.out is not None:
        output.note(f"wrote {run.out}")
    if made.failed:
        raise typer.Exit(1)
