"""``ecdreg tune``: hyper-parameters, searched by cross-validation and never by the holdout."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import output
from cli.options.common import (
    JsonOption,
    RecipeOption,
    SeedOption,
    SplitOption,
    TargetOption,
    TextLevelOption,
    open_engine,
)
from cli.options.common import settings as environment
from cli.options.training import view_options

if TYPE_CHECKING:
    from train.config.config import TrainConfig
    from train.experiments.tuning import TuneResult

__all__ = ["tune"]

DEFAULT_TRIALS = 40


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
            "--config", metavar="FILE", help="TOML with the configuration to begin with, whatever its target."
        ),
    ] = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Begin with dense readouts as published, and search how they are trained.")
    ] = False,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials", min=1, help="How many the search shall have, earlier ones included; 40 without --minutes."
        ),
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
    """Search the hyper-parameters of a kind of model, each trial by cross-validation on the split's cv rows.

    The first trial is what `ecdreg train KIND` does by itself, and the best is never worse than it in
    cross-validation. Regressors find their own parameters: searched is which one reads which features, and which
    towers a stack joins. With `--dense` it is the widths, rates and dropout of the published readouts. The
    holdout is not read.

    Trials are kept in the database (schema optuna): the same command goes on where it was, and says so at once
    when there are enough. `ecdreg train KIND --config FILE` trains what was found.

    \b
    Examples:
      ecdreg tune image --target k_vrh --trials 50
      ecdreg tune stacked --target efermi --minutes 20
      ecdreg tune text --dense --minutes 20 -o tuned/
      ecdreg train text --target efermi --config tuned/text-efermi.toml
    """
    from registry.database import session_scope
    from registry.errors import ConfigurationError
    from registry.files.grids import GridStore
    from registry.properties import TARGETS, property_named
    from registry.splits import find_split
    from train.experiments.tuning import tune as search
    from train.features.cache import FeatureCache

    targets = list(dict.fromkeys(target or TARGETS))
    if dense and config is not None:
        raise typer.BadParameter("--dense and --config both say what to begin with; give one")
    given = _begin(kind, recipe, text_level, dense=dense) if config is None else _read(config, kind)
    configs = [_config(kind, name, given) for name in targets]
    if not out.is_dir():
        raise ConfigurationError(f"no folder {out}; make it, or give another one to -o")
    engine = open_engine()
    with session_scope(engine) as session:
        for name in targets:
            property_named(name)
            find_split(session, split, name)  # says which there are, before the first search begins
    environ = environment()
    budget = DEFAULT_TRIALS if trials is None and minutes is None else trials
    results = []
    with output.progress() as progress:
        cache = FeatureCache(engine, models=environ.models, progress=progress, grids=GridStore(environ.grids_url))
        for one in configs:
            result = search(
                engine,
                environ,
                one,
                split=split,
                seed=seed,
                trials=budget,
                minutes=minutes,
                progress=progress,
                cache=cache,
            )
            results.append((result, _write(result, kind, out)))
    if json:
        output.json([asdict(result) | {"best": result.best.to_dict(), "file": str(file)} for result, file in results])
        return
    output.table([_row(result, file) for result, file in results])
    for result, file in results:
        changed = ", ".join(f"{name} {_short(value)}" for name, value in result.changed.items())
        output.note(f"{result.target}: {changed or 'nothing is better than the configuration as it was'}")
        output.note(f"go on: ecdreg train {kind} --target {result.target} --split {split} --config {file}")


def _begin(kind: str, recipe: str, text_level: str, *, dense: bool) -> dict[str, Any]:
    """Fields of the configuration that `ecdreg train` has by itself, or of the published one."""
    from train.config.defaults import recommended

    seen: dict[str, Any] = {"recipe": recipe, "text_level": text_level}
    if kind in ("image", "stacked"):
        seen |= view_options(recipe, None, average=True, augment=False)
    return seen if dense else seen | recommended(kind, {})


def _config(kind: str, target: str, given: dict[str, Any]) -> TrainConfig:
    from train.config.config import TrainConfig

    bare = TrainConfig.from_dict({"kind": kind, "target": target}).to_dict()
    # Options of what the model sees are no error where it sees nothing of the kind.
    fields = {name: value for name, value in given.items() if name in bare or name not in ("recipe", "text_level")}
    return TrainConfig.from_dict({**fields, "kind": kind, "target": target})


def _read(file: Path, kind: str) -> dict[str, Any]:
    from train.config.files import read_config

    return read_config(file, kind)


def _write(result: TuneResult, kind: str, folder: Path) -> Path:
    from registry.errors import ConfigurationError
    from train.config.files import toml_of

    file = folder / f"{kind}-{result.target}.toml"
    told = (
        f"# {result.study}: the best of {result.finished} trials in cross-validation on split {result.split},"
        f" RMSE {result.best_rmse:.4g} {result.unit}\n"
    )
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        part.write_text(told + toml_of(result.best), encoding="utf-8")
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigurationError(f"cannot write {file}: {error.strerror}; choose another folder with -o") from error
    return file


def _row(result: TuneResult, file: Path) -> dict[str, Any]:
    return {
        "target": result.target,
        "trials": f"{result.finished} ({result.made} now, {result.pruned} given up)",
        "cv RMSE as it was": result.default_rmse,
        "cv RMSE, best": result.best_rmse,
        "unit": result.unit,
        "cv R2, best": result.best_r2,
        "file": str(file),
    }


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
