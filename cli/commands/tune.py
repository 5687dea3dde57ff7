"""``ecdreg tune``: search for hyper-parameters by cross-validation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli import output
from cli.connections import open_registry
from cli.options.arguments import JsonOption, RecipeOption, SeedOption, SplitOption, TargetOption, TextLevelOption
from ecdreg.models.tuning import TunedModel

__all__ = ["tune"]


def tune(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="image, text, composition, density, stacked, dual-encoder, clip or baseline-magpie.",
            show_default=False,
        ),
    ],
    target: TargetOption = None,
    split: SplitOption = "default",
    recipe: RecipeOption = "metric",
    text_level: TextLevelOption = "keywords",
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="TOML with the configuration of the first trial, whatever its target."
        ),
    ] = None,
    dense: Annotated[
        bool,
        typer.Option(
            "--dense",
            help="Begin with the paper's protocol with substitute backbones; vary its dense readouts' training.",
        ),
    ] = False,
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=1, help="Trials of the search, earlier ones included; 40 without --minutes."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0.0, help="Begin no trial later than this, for each target.")
    ] = None,
    seed: SeedOption = 0,
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for KIND-TARGET.toml, the best configuration.")
    ] = Path(),
    json: JsonOption = False,
) -> None:
    """Search the hyper-parameters of a kind of model by cross-validation on the split's cv rows.

    The first trial is what `ecdreg train KIND` trains by default, so that the best is never worse in
    cross-validation. Regressors find their own parameters: the search varies which regressor reads which features,
    and which towers a stack joins. With `--dense` it varies widths, rates and dropout of dense readouts, in the
    paper's protocol with substitute backbones. The holdout is not read.

    Trials are kept in the database (schema optuna): the same command continues the search, and returns at once when
    there are enough trials. `ecdreg train KIND --config FILE` trains the best configuration.

    \b
    Examples:
      ecdreg tune image --target k_vrh --trials 50
      ecdreg tune stacked --target efermi --minutes 20
      ecdreg tune text --dense --minutes 20 -o tuned/
      ecdreg train text --target efermi --config tuned/text-efermi.toml
    """
    with output.progress() as progress:
        tuned = open_registry().tune(
            kind,
            targets=target,
            split=split,
            recipe=recipe,
            text_level=text_level,
            config=config,
            dense=dense,
            trials=trials,
            minutes=minutes,
            seed=seed,
            folder=out,
            progress=progress,
        )
    if json:
        output.json(tuned.to_dicts())
        return
    output.table([_row(one) for one in tuned])
    for one in tuned:
        result = one.result
        changed = ", ".join(f"{name} {_short(value)}" for name, value in result.changed.items())
        output.note(f"{result.target}: {changed or 'no trial is better than the first one'}")
        output.note(f"next: ecdreg train {kind} --target {result.target} --split {split} --config {one.file}")


def _row(one: TunedModel) -> dict[str, Any]:
    result = one.result
    return {
        "target": result.target,
        "trials": f"{result.finished} ({result.made} now, {result.pruned} stopped early)",
        "cv RMSE, first": result.default_rmse,
        "cv RMSE, best": result.best_rmse,
        "unit": result.unit,
        "cv R2, best": result.best_r2,
        "file": str(one.file),
    }


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
